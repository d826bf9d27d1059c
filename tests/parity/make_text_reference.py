#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes text.json, the reference for prompt cleaning and token ids, and tokenizer-2000/tokenizer.json.

Needs diffusers, transformers, ftfy, tokenizers and sentencepiece. Run it from anywhere, without arguments. The cleaning
is Diffusers' prompt_clean. Two tokenizers give ids:

- "tiny": the embedded model's, through AutoTokenizer, called as WanPipeline calls it;
- "fallback": tokenizer-2000, trained here, for what the embedded model's lacks: byte_fallback, unk_id 3, end token
  before the start token, <extra_id_N> after the vocabulary that take the whitespace beside them, Metaspace without
  WhitespaceSplit. It is read by the tokenizers library, as T5TokenizerFast of transformers 4 reads it.

Sentences that ftfy takes for text in a wrong encoding are left out: prompt_clean.cpp does not guess encodings.
"""

import io
import json
import pathlib

import ftfy
import sentencepiece
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FALLBACK = HERE / "tokenizer-2000"
MAX_LENGTH = 512

OFFICIAL_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)

PLAIN = """
a red circle bouncing on a blue background
a big green star sliding from left to right on a black background
two small cyan triangles and a pink heart, spinning, at sunset
a purple ring orbiting, on a checkerboard
A Video Of A Yellow Square, 4K, High Quality, Cinematic
Two anthropomorphic cats in comfy boxing gear and bright gloves fight intensely on a spotlighted stage.
zoom-in, f/1.8, 35mm, ISO 100; 16:9 @ 24 fps (slow motion)
THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG
the quick brown fox jumps over the lazy dog 0123456789
!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~
snake_case camelCase kebab-case dotted.name path/to/file C:\\dir\\file
https://example.com/watch?v=abc&t=1s#frag someone@example.com
3.14159 -273.15 1e-6 1,000,000 $9.99 50% 12:30 2024-02-29
hello hello hello hello hello hello
a
A
0
.
-
a b c d e f g h i j k l m n o p q r s t u v w x y z
supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis
don't can't won't it's 'quoted' "double" `backtick`
wow!!! really??? no... yes!?!?
........
.................
!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
00000000000000000
000000000000000000 0000000000000 111111111
hahahahahahahahahaha
aaaaaaaaaaaaaaaaaaaaaaaaaaaaa
noooooooooooooo waaaaaaaah brrrrrrrr zzzzzzzzzzzzz
--- === *** ### ~~~ ___ ||| <<< >>>
""".strip().splitlines()

UNICODE = """
café crème brûlée à la carte, naïve façade, Zoë
Größenwahn, Übermut, Straße, Äpfel und Öl
El Niño pingüino, ¿qué? ¡olé!
Příliš žluťoučký kůň úpěl ďábelské ódy
Zażółć gęślą jaźń
Árvíztűrő tükörfúrógép
İstanbul'da ılık bir akşam, ğüşöç
Þórr, ðætt, øy, æble, Ærø, œuvre, Œdipe
Съешь ещё этих мягких французских булок
Η γρήγορη καφέ αλεπού, ᾳ ῼ ΐ
Լավ օր, գեղեցիկ քաղաք
გამარჯობა მსოფლიო
你好，世界！一只红色的圆在蓝色背景上弹跳。
繁體中文：紅色的圓在藍色背景上彈跳
赤い円が青い背景の上で跳ねている。
カタカナとひらがなと漢字、混ぜて書く
ﾊﾝｶｸｶﾅ ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟﾌﾟ ｱｲｳ｡｢｣､･ｰ
안녕하세요, 파란 배경에서 튀는 빨간 원
한글 자모
ﾡﾢﾣ ￂￃ ￠￡￢￣￤￥￦ ￨￩￪￫￬￭￮
ＬＯＵＤ　ＮＯＩＳＥＳ，１２３！？＃（ａｂｃ）
𠀀𠀁 𪚥 㐀㐁 鿿 rare ideographs
豈更車賈 compatibility ideographs
مرحبا بالعالم، دائرة حمراء تقفز
العَرَبِيَّة مع التشكيل ﷲ ﷺ ﻻ
שלום עולם, עיגול אדום
בְּרֵאשִׁית שׁלום
नमस्ते दुनिया, क्षत्रिय ज्ञान श्री
বাংলা ভাষা, হ্যালো বিশ্ব
தமிழ் மொழி கொக்கு
สวัสดีชาวโลก น้ำ กำลัง
ຂອບໃຈ ນ້ຳ
မြန်မာဘာသာ
ខ្មែរ ភាសា
བོད་སྐད་ ༄༅།
አማርኛ ሰላም
ᏣᎳᎩ ᎣᏏᏲ
ᚠᛇᚻ runes ᛒᛦᚦ
ⰀⰁⰂ 𐍈𐌰𐍃 𓀀𓁐
Tiếng Việt: một hình tròn đỏ nảy trên nền xanh
Hawaiʻi okina, Kākāpō
x² + y³ = z⁴, H₂O, ½ ¼ ¾ ⅓ ⅞, ∑ ∫ √ ∞ ≠ ≤ ≥ ±
① ② ③ ⑩ ㊀ ㊙ ㍿ ㌔ ㎏ ㏒ ㏂
™ ® © ℠ № ℃ ℉ Å Ω µ ª º
Ⅰ Ⅱ Ⅲ Ⅳ Ⅻ ⅰ ⅷ
𝐁𝐨𝐥𝐝 𝑖𝑡𝑎𝑙𝑖𝑐 𝒮𝒸𝓇𝒾𝓅𝓉 𝔉𝔯𝔞𝔨 𝔻𝕠𝕦𝕓𝕝𝕖 𝚖𝚘𝚗𝚘
ⓐⓑⓒ ⒶⒷⒸ ⑴⑵ ⒜⒝ 🄰🄱 🅰🅱
ﬁne ﬂow ﬀ ﬃ ﬄ ﬅ ﬆ oﬀice aﬄuent
Ĳssel ĳs ŉ Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ
ŀ Ŀ ſ ẛ ﬓ ﬔ ﬕ ﭏ
… ‥ ․ ‼ ⁇ ⁈ ⁉ – — ― ‐ ‑ − ‒
← → ↑ ↓ ↔ ⇒ ⇔ ➜ ★ ☆ ♥ ♦ ♣ ♠ ♪ ♫ ☀ ☁ ☂ ☃
▁ ▁▁ a▁b ▁x y▁ literal lower blocks
█▉▊ ░▒▓ ┌─┐ │ └─┘ ■ □ ● ○ ◆ ◇
¨ ´ ` ˜ ¸ ˚ ˙ ˛ ˝ ‾ spacing accents
a¨b c´d e¸f g‗h
‘single’ “double” ‚low‛ „low‟ ʼapostropheʼ ‹angle› «guillemets» ′prime″
“She said ‘it’s fine’,” he’d say — twice
¹²³ ⁰⁴⁵ ₀₁₂ ⁺⁻⁼ ⁽⁾ ₊₋ ⁿ ᵃᵇᶜ ʰʲ
€ £ ¥ ₹ ₽ ₿ ¢ ₩ ﷼ ￥ ﹩ ＄
﹐﹑﹒ ﹔﹕﹖﹗ ﹙﹚ ︰ ︵︶ ｟｠
㍐ ㋀ ㏠ ㍘ ㆒ ㄱㅏ ㈀ ㉠
ꟸ ꭜ ℵ ℶ ℏ ℓ ℘ ⅆ ⅇ ⅈ
""".strip().splitlines()

EMOJI = """
😀 😂 🥲 🤖 👻 🎃 a smiling face
❤ ❤️ ☺️ ✌️ ☎️ ™️ ©️ ®️ ‼️ ⁉️ ㊗️ ㊙️
👍🏻 👍🏽 👍🏿 ✊🏾 🧑🏼
👨‍👩‍👧‍👦 family, 👩‍🚀 astronaut, 🏳️‍🌈 flag, 🏴‍☠️ pirate, ❤️‍🔥
🇩🇪 🇫🇷 🇯🇵 🇺🇳 🇪🇺🇬🇧
🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏴󠁧󠁢󠁳󠁣󠁴󠁿 subdivision flags
1️⃣ 2️⃣ #️⃣ *️⃣ 🔟 keycaps
🦀🐙🐳a whale🐳b
🎬🎥📽️ 🌅🌊 sunset over the sea 🌊🌅
🫠🫡🪿🫎 newer emoji
""".strip().splitlines()

HTML = """
&amp; &lt; &gt; &quot; &apos; &nbsp; &copy;
&amp;amp;amp; &amp;lt;b&amp;gt; &amp;#39;
AT&T, R&B, this&not that, &notit; &notin; &ampersand
&eacute;t&eacute; &EACUTE;T&EACUTE; &NTILDE; &nTILDE; BUNDESSTRA&SZLIG;E
&hellip; &mdash; &ndash; &lsquo;x&rsquo; &ldquo;y&rdquo; &laquo;z&raquo;
&Jscr;ohn &HilbertSpace;ancock &checkmark; &fjlig; &NotEqualTilde; &bne;
&#65;&#66;&#x43;&#X44; &#x1F600; &#128512; &#233;
&#65 &#x41 &#x41g &#233x &eacute &eacutex &copy2024 &ltb &gt= &AMP &QUOT
&#0; &#x0; &#1; &#11; &#13; &#31; &#127; &#xFFFE; &#xFDD0; &#x1FFFF; end
&#128; &#133; &#145;&#146; &#147;x&#148; &#150; &#x99; &#x81; &#x8D; end
&#xD800; &#xDFFF; &#x110000; &#99999999999; &#xFFFFFFFFFFFF; end
&#59; &#x3b; &#38;lt; &#38;#38; &#60;b&#62;
& &; &# &#; &#x &#x; &a &zzz; &;; && &&amp;;
<b>bold &amp; brave</b> &lt;i&gt; &eacute; &EACUTE;
a < b &amp; c &hellip; &HELLIP;
<br/> &nbsp; &#160;x&#160;y
&thinsp;thin&ensp;en&emsp;em&zwj;&zwnj;&shy;soft&lrm;&rlm;
&CounterClockwiseContourIntegral; &DoubleLongLeftRightArrow; &longest
&frac12;&frac14;&sup2;&sup3;&deg;&micro;&para;&sect;&times;&divide;
&Alpha;&beta;&Gamma; &omega; &ALPHA; &OMEGA; &alpha &Omegax;
&#xff21;&#xff22; &#xfb01;x &#x2019;s &#x201c;q&#x201d;
&amp;hellip; &amp;eacute &amp;amp &amp;ampamp;
&#12345678901234567890; &#x00000041; &#00065;
&tab;x&Tab;y&NewLine;z &excl; &num; &dollar; &percnt;
&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;
""".strip().splitlines()

SPECIAL_TOKENS = """
</s>
<pad>
<unk>
<s>
<extra_id_0>
a </s> b
a</s>b
</s></s></s>
x <pad> y<pad>z
unknown <unk> token <unk>
fill <extra_id_0> and <extra_id_1> in
fill<extra_id_0>and<extra_id_10>in
<extra_id_299> <extra_id_300> <extra_id_-1> <extra_id_00>
< / s > <PAD> </S> <pad <pad>> </s
&lt;/s&gt; &lt;pad&gt; escaped
＜／ｓ＞ full-width
<0x41> <0x0A> <0xFF> bytes by name
▁</s>▁ <pad>▁a
a  </s>  b   <unk>   c
a <mask> b [MASK] [CLS] [SEP] <|endoftext|>
""".strip().splitlines()

# Written as escapes: these cannot be seen, or an editor would change them.
INVISIBLE = [
    "",
    " ",
    "     ",
    "\n",
    "\t\t\n",
    "\u3000\u3000",
    "\u00a0",
    "\ufeff",
    "\u200b",
    "\u200b \u200b",
    "\u00ad",
    "&nbsp;",
    "\x00",
    "\x07\x08",
    "  leading and trailing  ",
    "double  spaces   between    words",
    "tabs\tand\nnewlines\r\nand\rreturns\fand\vmore",
    "line one\nline two\n\nline four\n",
    "no\u00a0break\u2007spaces\u202fhere\u2060joined",
    "en\u2002em\u2003three\u2004four\u2005six\u2006punct\u2008thin\u2009hair\u200aend",
    "line\u2028separator\u2029paragraph\u0085next",
    "ogham\u1680space mathematical\u205fspace ideographic\u3000space",
    "\ufeffbyte order mark\ufeff inside",
    "zero\u200bwidth\u200cnon\u200djoiner\u200emarks\u200f",
    "\u202aembedding\u202b \u202doverride\u202c \u2066isolate\u2069",
    "\u206ainhibit\u206f \ufff9a\ufffab\ufffb \ufffcobject \ufffdreplacement",
    "null\x00byte bell\x07 back\x08space escape\x1b delete\x7f",
    "file\x1cgroup\x1drecord\x1eunit\x1fseparators",
    "\x1b[31mred\x1b[0m \x1b[1;36;44mcyan\x1b[m plain",
    "\x1b[2J\x1b[Hcursor \x1b[12;40Hmove \x1b[31 unfinished \x1b[?25l private",
    "\x1b[3&#49;m hidden \x1b[&#x6d;",
    "soft\u00adhyphen co\u00adop\u00aderate",
    "variation\ufe0e selector\ufe0f text\U000e0100 supplement",
    "mongolian\u180evowel\u180bseparator combining\u034fgrapheme\u034fjoiner",
    "word\u2063invisible\u2062times\u2061apply\u2064plus",
    "\ue000private\uf8ff use \U000f0000\U0010fffd",
    "noncharacters \ufdd0 \ufffe \uffff \U0001ffff",
    "unassigned \u0378 \u05ff \U000e0fff",
    "surrogate pair in one: \U0001f4a9",
    "tag characters \U000e0041\U000e0042",
    "music \U0001d173\U0001d17a \U0001d15e",
    # Combining marks
    "e\u0301 a\u0300 n\u0303 o\u0308 c\u0327 A\u030a",
    "e\u0301\u0302\u0303 stacked",
    "a\u0323\u0302 a\u0302\u0323 q\u0307\u0323 q\u0323\u0307",
    "\u00e9\u0301 \u00e0\u0323 \u01d6\u0301 \u1e69\u0308",
    "Z\u0351\u036b\u0343\u036aa\u0310\u034cl\u034ag\u0300o\u0348 text",
    "\u0301lone mark \u0301\u0302 \u0308x",
    "\u00bd\u0308x \u00b2\u0301 \u00aa\u0327 \u2122\u0301",
    "\u00a8\u0301 \u00b4\u0308 \u00af\u0304 \u02d8\u0301",
    "\u017f\u0307 \u1e9b\u0323 \u212b\u0327 \u2126\u0301",
    "\u0132\u0301 \ufb01\u0301 \u01c4\u030c \u0149\u0301",
    "\uff21\u0301 \uff76\uff9e \uff8a\uff9f \uff76\u3099 \u304b\u3099",
    "\u1100\u1161\u11a8 \uac00\u11a8 \u3131\u3161",
    "\u0627\u0653 \u0627\u0654 \u0622 \u064a\u0654",
    "\u0915\u093c \u0958 \u09a1\u09bc \u0a32\u0a3c",
    "\u0344 \u0340\u0341 \u0374 \u037e \u0387 \u1fef \u2000x\u2001",
    "a\u0903 b\u0e33 c\u0eb3 d\U0001f3fb e\U000e0020f",
    "\u0600\u0661 \u06dda \u070f\u0710 prepended marks",
    "\u00a9\u200d \u00ae\ufe0f \u203c\ufe0f 1\u20e3 a\u20dd",
    "a\u05b0\u05bc \u05e9\u05c1\u05bc \ufb2a \ufb2c",
    "\u2f800 \uf900 \ufa0e \ufa10 \U0002f800",
]

LONG = [
    " ".join(f"word{i}" for i in range(600)),
    " ".join(["a red circle bouncing on a blue background,"] * 100),
    "x" * 2000,
    OFFICIAL_NEGATIVE * 6,
    " ".join(["a"] * 510),
    " ".join(["a"] * 511),
    " ".join(["a"] * 512),
    " ".join(["a"] * 505) + " </s> b",
    "😀" * 600,
]


def sentences():
    return [*PLAIN, OFFICIAL_NEGATIVE, *UNICODE, *EMOJI, *HTML, *SPECIAL_TOKENS, *INVISIBLE, *LONG]


def encoding_is_guessed(text):
    """Whether cleaning it without the guesses of ftfy gives something else."""
    return any(
        ftfy.fix_text(line) != ftfy.fix_text(line, fix_encoding=False) for line in (text, *text.splitlines(keepends=True))
    )


def train_fallback():
    """Two thousand pieces from the project's own prose and the sentences, shaped like UMT5's tokenizer.json."""
    prose = [ROOT / "LICENSE", ROOT / "models" / "README.md", ROOT / "models" / "train_tiny_wan.py"]
    lines = [line for path in prose for line in path.read_text().splitlines()] + PLAIN * 20 + UNICODE
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=2000, byte_fallback=True, character_coverage=0.99,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]

    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.add_special_tokens(
        [AddedToken(f"<extra_id_{i}>", lstrip=True, rstrip=True, normalized=False) for i in range(299, -1, -1)]
    )
    FALLBACK.mkdir(exist_ok=True)
    tokenizer.save(str(FALLBACK / "tokenizer.json"), pretty=False)


def main():
    train_fallback()
    tiny = AutoTokenizer.from_pretrained(ROOT / "models" / "wan-tiny" / "tokenizer")
    fallback = Tokenizer.from_file(str(FALLBACK / "tokenizer.json"))
    fallback.enable_truncation(MAX_LENGTH)

    rows = []
    for text in sentences():
        if encoding_is_guessed(text):
            print("left out, ftfy guesses its encoding:", ascii(text))
            continue
        cleaned = prompt_clean(text)
        output = tiny([cleaned], padding="max_length", max_length=MAX_LENGTH, truncation=True, add_special_tokens=True,
                      return_attention_mask=True)  # fmt: skip
        length = sum(output["attention_mask"][0])
        ids = output["input_ids"][0]
        assert set(ids[length:]) <= {tiny.pad_token_id}
        rows.append({"text": text, "cleaned": cleaned, "tiny": ids[:length], "fallback": fallback.encode(cleaned).ids})

    with open(HERE / "text.json", "w", encoding="ascii") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(len(rows), "sentences")


if __name__ == "__main__":
    main()
