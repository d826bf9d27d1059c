#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes added_tokens.json: ids by the tokenizers library where added tokens have flags that no released tokenizer has.

Needs tokenizers. Run it from anywhere, without arguments. Each case adds tokens to tokenizer-2000/tokenizer.json.
"""

import json
import pathlib

import tokenizers

HERE = pathlib.Path(__file__).resolve().parent
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}

TOKENS = {
    "single_word": [{"content": "ohwx", "single_word": True}],
    "single_word, a longer one too": [{"content": "ohwx", "single_word": True}, {"content": "ohwx man"}],
    "a shorter one in a single word": [{"content": "oh"}, {"content": "ohwx", "single_word": True}],
    "lstrip": [{"content": "ohwx", "lstrip": True}],
    "rstrip": [{"content": "ohwx", "rstrip": True}],
    "both, single_word": [{"content": "ohwx", "lstrip": True, "rstrip": True, "single_word": True}],
    "normalized": [{"content": "ohwx", "normalized": True}],
    "normalized, in another form": [{"content": "ｏｈｗｘ", "normalized": True, "single_word": True}],
    "not normalized, in another form": [{"content": "ｏｈｗｘ"}],
    "one of the whitespace": [{"content": "ohwx", "rstrip": True}, {"content": "  "}],
    "of the vocabulary, under a wrong id": [{"content": "▁the", "id": 5000}, {"content": "ohwx", "id": 2300}],
}

TEXTS = """
ohwx
ohwxman
a man ohwx
a ohwx man
man ohwxman ohwx
manohwx
(ohwx)
_ohwx ohwx_ ohwx1 ohwx½ ohwx² ohwxⅣ ohwxⓐ
éohwx ohwxé ohwx\u0301 \u200dohwx ohwx\u200d
中ohwx文 ohwx‿ ohwx-ohwx ohwx.ohwx
  ohwx   ohwx ohwxohwx
the ▁the ohwx\u00a0\u3000ohwx
ｏｈｗｘ a ｏｈｗｘ man ｏｈｗｘman
oh ohw ohwx ohohwx
</s>ohwx<pad> ohwx </s>
""".strip("\n").split("\n")


def with_tokens(file, tokens):
    ids = (token["id"] for token in file["added_tokens"])
    first = max(max(ids), len(file["model"]["vocab"]) - 1) + 1
    added = [{"id": first + i, **FLAGS, **token} for i, token in enumerate(tokens)]
    return {**file, "added_tokens": file["added_tokens"] + added}


def main():
    file = json.loads((HERE / "tokenizer-2000" / "tokenizer.json").read_text(encoding="utf-8"))
    cases = []
    for name, tokens in TOKENS.items():
        changed = with_tokens(file, tokens)
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(changed))
        ids = {text: tokenizer.encode(text).ids for text in TEXTS}
        cases.append({"name": name, "added_tokens": changed["added_tokens"][len(file["added_tokens"]) :], "ids": ids})
    text = json.dumps(cases, ensure_ascii=False, indent=1)
    (HERE / "added_tokens.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
