// SPDX-License-Identifier: LGPL-2.1-or-later
'use strict';

const $ = id => document.getElementById(id);
const video = $('video');

let socket = null;
let peer = null;           // the RTCPeerConnection of the video
let negotiation = null;    // what came from the program is followed in order
let retryDelay = 500;      // ms
let before = {};           // of the newest report; alive: when the last frame was seen to come
let settingsEdited = false;
let isEndless = false, takesPictures = false;  // the model
let standing = '';         // what is shown until something else is asked for
let isEdited = false;      // the prompt was, and not sent yet
let change = null;         // of the scene, as it was typed here: its prompt, and when it was sent
const shownLists = {};     // as JSON, by the ids of their elements
const awaited = new Map(); // when the clips were asked for that were queued here, by their ids
let sent = 0;              // when the newest of them was
const token = location.hash.slice(1);  // to steer with; "watch": this page is for watching
let picture = null;        // the JPEG (Blob) that the next queued clip begins with

// ---- the connection to the program

function connect() {
  socket = new WebSocket(`ws://${location.host}/socket`);
  socket.onopen = () => {
    retryDelay = 500;
    if (token && token !== 'watch') send({type: 'steer', token});
    watch();
    if (picture) socket.send(picture);
  };
  socket.onmessage = event => {
    const message = JSON.parse(event.data);
    handlers[message.type]?.(message);
  };
  socket.onclose = () => {
    closePeer();
    $('connection').textContent = 'Not connected, trying again…';
    setTimeout(connect, retryDelay);
    retryDelay = Math.min(retryDelay * 2, 5000);
  };
}

function send(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  else showError('Not connected.');
}

const handlers = {
  hello: ({stun, steers, records}) => {
    $('recorder').hidden = !records;
    stunServer = stun?.replace('stun://', 'stun:');
    letSteer(steers && token !== 'watch');
  },
  offer: ({sdp}) => inOrder(async current => {
    await current.setRemoteDescription({type: 'offer', sdp});
    await current.setLocalDescription();
    send({type: 'answer', sdp: current.localDescription.sdp});
  }),
  candidate: ({candidate}) => inOrder(current => current.addIceCandidate({candidate, sdpMLineIndex: 0})),
  state: showState,
  done: ({request, clip, on, name}) => {
    showError('');
    if (request === 'steer') return letSteer(true);
    if (request === 'record') return show('note', on ? `Recording to ${name}.` : 'The recording ends.');
    if (request === 'cut') awaited.clear();  // it takes their place
    if (clip) awaited.set(clip, sent);
    $('note').textContent = request === 'set' && change ? 'The scene changes.' : notes[request];
    if (request === 'enqueue') clearForm();
    if (request === 'picture') usePicture();
    if (request === 'set' && !change) settingsWereTaken();
  },
  recorded: ({name, bytes, reason}) => {
    showError(reason && `The recording has ended. ${reason}`);
    show('recorded', `${name}, ${megabytes(bytes)}`);
  },
  error: ({message, request}) => {
    showError(message);
    if (request === 'picture') removePicture();
  },
};

const megabytes = bytes => `${(bytes / 1e6).toFixed(1)} MB`;

function letSteer(may) {
  document.body.classList.toggle('watching', !may);
}

const notes = {
  enqueue: 'Added to the queue.',
  cut: 'The new scene begins.',
  again: 'It will be shown again.',
  picture: 'The next clip that is queued begins with this picture.',
  set: 'From the next clip on.',
  skip: 'The clip is skipped.',
  clear: 'The queue is cleared.',
};

// ---- the video

let stunServer;

function codecs() {
  const known = RTCRtpReceiver.getCapabilities?.('video')?.codecs.map(codec => codec.mimeType.toLowerCase());
  const wanted = $('codec').value ? [$('codec').value] : ['vp8', 'h264'];
  return wanted.filter(name => !known || known.includes(`video/${name}`));
}

// Asks for video, in place of what there is.
function watch(status = 'Connecting…') {
  closePeer();
  $('connection').textContent = status;
  before = {alive: performance.now()};
  const created = peer = new RTCPeerConnection({iceServers: stunServer ? [{urls: stunServer}] : []});
  negotiation = Promise.resolve();
  created.ontrack = ({receiver, track}) => {
    receiver.jitterBufferTarget = 0;  // live: as soon as possible
    video.srcObject = new MediaStream([track]);
  };
  created.onicecandidate = ({candidate}) => {
    if (candidate?.candidate) send({type: 'candidate', candidate: candidate.candidate});
  };
  created.onconnectionstatechange = () => {
    if (created.connectionState === 'connected') $('connection').textContent = 'Live';
    if (created.connectionState === 'failed') watch();
  };
  send({type: 'watch', codecs: codecs()});
}

function closePeer() {
  peer?.close();
  peer = null;
}

// Runs the step after those before it, unless the connection it is for is no longer the one that is used.
function inOrder(step) {
  const current = peer;
  if (!current) return;
  negotiation = negotiation.then(() => current === peer && step(current)).catch(error => showError(error.message));
}

video.addEventListener('resize', () => {
  if (video.videoWidth) video.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
});

// ---- what the program says of itself

const pictureOf = clip => `picture/${clip.id}`;

function thumbnail(clip) {
  const image = new Image();
  image.src = pictureOf(clip);
  image.alt = 'Its picture';
  image.onerror = () => image.remove();  // the clip has ended meanwhile
  return image;
}

function queued(clip) {
  const item = document.createElement('li');
  item.textContent = clip.prompt;
  if (clip.picture) item.append(thumbnail(clip));
  return item;
}

function past(scene) {
  const [item, button, texts, prompt, seed] =
    ['li', 'button', 'span', 'span', 'span'].map(tag => document.createElement(tag));
  button.type = 'button';
  [prompt.className, prompt.textContent] = ['prompt', scene.prompt];
  [seed.className, seed.textContent] = ['quiet', `Seed ${scene.seed}`];
  texts.append(prompt, seed);
  button.append(texts);
  button.dataset.scene = scene.scene;
  if (scene.picture) button.append(thumbnail(scene));
  item.append(button);
  return item;
}

// Made anew only where it has changed; what had the focus keeps it.
function showList(id, values, make) {
  const news = JSON.stringify(values);
  if (news === (shownLists[id] ?? '[]')) return;
  shownLists[id] = news;
  const focused = $(id).contains(document.activeElement) ? document.activeElement.dataset.scene : null;
  $(id).replaceChildren(...values.map(make));
  if (focused) $(id).querySelector(`[data-scene="${focused}"]`)?.focus();
}

function showAir(clip) {
  if (awaited.has(clip.id)) tellDelay(awaited.get(clip.id));
  awaited.delete(clip.id);
  if (change?.prompt === clip.prompt) {
    tellDelay(change.sent);
    change = null;
  }
  show('air', clip.prompt || 'No prompt');
  show('clip', `Clip ${clip.clip}, seed ${clip.seed}`);
  if (clip.picture) $('air-picture').setAttribute('src', pictureOf(clip));
  $('air-picture').hidden = !clip.picture;
}

function tellDelay(since) {
  const seconds = ((performance.now() - since) / 1000).toFixed(1);
  show('prompt-to-air', `${seconds} s`);
  if (isEndless) show('note', `On air after ${seconds} s.`);
}

// The field shows what is on air, unless somebody types into it.
function followPrompt() {
  const isBusy = isEdited || document.activeElement === $('prompt');
  if (isEndless && !isBusy && $('prompt').value !== standing) $('prompt').value = standing;
}

// Assigns only what changes, since screen readers read out what is assigned.
function show(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function showRecording(recording) {
  $('record').classList.toggle('on', Boolean(recording));
  show('record', recording ? 'Stop recording' : 'Record');
  if (!recording) return;
  const {seconds, bytes} = recording, two = number => String(number).padStart(2, '0');
  show('recorded', `${Math.floor(seconds / 60)}:${two(seconds % 60)}, ${megabytes(bytes)}`);
}

function showState({onAir, queue, history, settings, stats, viewers, recording}) {
  showRecording(recording);
  showModel(stats);
  standing = settings.prompt ?? '';
  if (onAir) showAir(onAir);
  else show('clip', progress(stats));
  showList('queue', queue, queued);
  showList('history', history, past);
  show('standing', `Then: ${standing || 'no prompt'}`);
  followPrompt();
  showMaking(stats);
  showStats(stats, viewers);
  if (!settingsEdited) for (const name of ['steps', 'guidance']) $(name).value = settings[name] ?? '';
}

// What the model can do decides what the page has.
function showModel(stats) {
  isEndless = stats.endless;
  takesPictures = stats['takes-image'];
  document.body.classList.remove('waiting');
  document.body.classList.toggle('endless', isEndless);
  document.body.classList.toggle('pictures', takesPictures);
}

function settingsWereTaken() {
  settingsEdited = false;
  $('seed').value = '';
}

const stages = {load: 'the model is loaded', text: 'the prompt is read', denoise: 'denoising', decode: 'decoding'};

const progress = ({stage, step, steps}) => (stages[stage] ?? 'nothing') + (steps ? `, ${step} of ${steps}` : '');

function showMaking(stats) {
  const {stage, step, steps, clip, seed} = stats;
  show('making', (clip < 0 ? '' : `Clip ${clip}, seed ${seed}: `) + progress(stats));
  const done = {denoise: stage === 'denoise' ? step / steps : Number(stage === 'decode'),
                decode: stage === 'decode' ? step / steps : 0};
  $('steps-progress').value = done.denoise || 0;
  $('chunks-progress').value = done.decode || 0;
}

function showStats(stats, viewers) {
  show('made', `${stats.fps.toFixed(1)} frames a second`);
  const chunks = stats['queue-level'];
  show('level', `${stats['queue-seconds'].toFixed(1)} s in ${chunks} ${chunks === 1 ? 'chunk' : 'chunks'}`);
  show('underruns', `${stats.underruns}, ${stats.repeated} frames repeated`);
  show('first-frame', `${(stats['first-frame-seconds'] * 1000).toFixed(0)} ms of decoding`);
  if (isEndless && stats['prompt-to-screen']) show('prompt-to-air', `${stats['prompt-to-screen'].toFixed(1)} s`);
  show('viewers', String(viewers));
}

function showError(text) {
  $('error').textContent = text;
  if (text) $('note').textContent = '';
}

// ---- what the browser says of the video

async function report() {
  const current = peer;
  const reports = current ? [...(await current.getStats()).values()] : [];
  const inbound = reports.find(({type, kind}) => type === 'inbound-rtp' && kind === 'video');
  if (!inbound || current !== peer) return;
  const now = performance.now();
  const seconds = (now - before.when) / 1000;
  const codec = reports.find(({id}) => id === inbound.codecId)?.mimeType.replace('video/', '') ?? '';
  if (seconds > 0) {
    show('shown', `${((inbound.framesDecoded - before.frames) / seconds).toFixed(1)} frames a second`);
    show('received', `${((inbound.bytesReceived - before.bytes) / seconds / 125).toFixed(0)} kbit/s, ${codec}`);
  }
  show('delay', delay(inbound, reports));
  const alive = inbound.framesDecoded > (before.frames ?? 0) ? now : before.alive;
  const {framesDecoded: frames, bytesReceived: bytes, totalProcessingDelay: processing} = inbound;
  before = {frames, bytes, processing, when: now, alive};
}

// On the way here, and from the first packet of a frame until it is decoded; on the average since the last report.
function delay(inbound, reports) {
  const pair = reports.find(({type, nominated}) => type === 'candidate-pair' && nominated);
  const way = (pair?.currentRoundTripTime ?? 0) * 1000 / 2;
  const frames = inbound.framesDecoded - before.frames;
  const decoding = (inbound.totalProcessingDelay - before.processing) * 1000 / frames;
  return decoding >= 0 ? `${way.toFixed(1)} + ${decoding.toFixed(1)} ms` : '–';
}

// The video never stands still while the program runs, so that it does means that the connection is broken. A browser
// may stop decoding what nobody looks at.
setInterval(async () => {
  await report();
  if (document.hidden) before.alive = performance.now();
  const stands = performance.now() - before.alive > 8000;
  if (stands && socket.readyState === WebSocket.OPEN) watch('No video gets through, trying again…');
}, 1000);

// ---- a picture for the next clip

const chooser = Object.assign(document.createElement('input'), {type: 'file', accept: 'image/*'});
const chosen = $('chosen'), preview = $('preview'), remove = $('remove');
chosen.remove();  // until there is one

// The program takes baseline JPEGs of this size, which is what a canvas makes of whatever the browser can read; cameras'
// orientation tags are followed, and nothing else of the file is kept.
const longestSide = 1280, largestPicture = 512 * 1024;

async function choosePicture(file) {
  if (!takesPictures) return showError('This model takes no pictures.');
  try {
    picture = await toJpeg(await createImageBitmap(file));
    if (socket.readyState === WebSocket.OPEN) socket.send(picture);
    else showError('Not connected.');
  } catch {
    removePicture();
    showError(`This browser cannot read ${file.name || 'that'} as a picture.`);
  }
}

// Cut to the video's shape, since the model would stretch it to that.
function crop({width, height}) {
  const aspect = video.videoWidth ? video.videoWidth / video.videoHeight : width / height;
  const [w, h] = [Math.min(width, height * aspect), Math.min(height, width / aspect)];
  return [(width - w) / 2, (height - h) / 2, w, h];
}

async function toJpeg(bitmap) {
  const [x, y, w, h] = crop(bitmap);
  const scale = Math.min(1, longestSide / Math.max(w, h));
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [w, h].map(side => Math.max(1, Math.round(side * scale)));
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.fillRect(0, 0, canvas.width, canvas.height);  // behind what is transparent
  context.drawImage(bitmap, x, y, w, h, 0, 0, canvas.width, canvas.height);
  let jpeg;
  for (let quality = 0.95; quality > 0.1; quality -= 0.1) {
    jpeg = await new Promise(done => canvas.toBlob(done, 'image/jpeg', quality));
    if (jpeg.size <= largestPicture) break;
  }
  return jpeg;
}

// A clip that is queued later begins with it; an endless video has a new scene at once.
function usePicture() {
  if (!isEndless) return showPicture();
  cut(true);
  removePicture();
}

function showPicture() {
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(picture);
  $('drop').append(chosen);
}

function removePicture() {
  picture = null;
  chooser.value = '';
  chosen.remove();
}

function clearForm() {
  $('prompt').value = '';
  removePicture();
}

chooser.addEventListener('change', () => {
  if (chooser.files.length) choosePicture(chooser.files[0]);
});
$('picture').addEventListener('click', () => chooser.click());
remove.addEventListener('click', () => {
  removePicture();
  $('picture').focus();
});
document.addEventListener('paste', ({clipboardData}) => {
  const [file] = clipboardData.files;
  if (file) choosePicture(file);
});
// Anywhere: a browser would go to what is dropped beside the field.
document.addEventListener('dragover', event => {
  event.preventDefault();
  $('drop').classList.add('over');
});
for (const over of ['dragleave', 'drop']) document.addEventListener(over, () => $('drop').classList.remove('over'));
document.addEventListener('drop', event => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) choosePicture(file);
});

// ---- what the viewer does

const settled = 600;  // ms after the last key: words are not shown letter by letter
let typing = null;

function ask(message) {
  clearTimeout(typing);
  isEdited = false;
  change = null;
  sent = performance.now();
  send(message);
}

const cut = withPicture => ask({type: 'cut', prompt: $('prompt').value || standing, picture: withPicture});

function changeScene() {
  const prompt = $('prompt').value.trim();
  isEdited = false;
  if (!prompt || prompt === standing) return;
  change = {prompt, sent: performance.now()};
  send({type: 'set', prompt});
}

$('prompt').addEventListener('input', () => {
  isEdited = true;
  clearTimeout(typing);
  if (isEndless && $('morph').checked) typing = setTimeout(changeScene, settled);
});
$('prompt-form').addEventListener('submit', event => {
  event.preventDefault();
  if (isEndless) cut(false);
  else ask({type: 'enqueue', prompt: $('prompt').value, picture: picture !== null});
});
$('history').addEventListener('click', ({target}) => {
  const button = target.closest('button');
  if (button) ask({type: 'again', scene: Number(button.dataset.scene)});
});
$('stay').addEventListener('click', () => {
  if ($('prompt').reportValidity()) ask({type: 'set', prompt: $('prompt').value});
});
$('skip').addEventListener('click', () => send({type: 'skip'}));
$('clear').addEventListener('click', () => send({type: 'clear'}));
$('record').addEventListener('click', ({currentTarget}) => {
  send({type: 'record', on: !currentTarget.classList.contains('on')});
});
$('codec').addEventListener('change', () => watch());
$('settings-form').addEventListener('input', () => { settingsEdited = true; });
$('settings-form').addEventListener('submit', event => {
  event.preventDefault();
  const value = name => $(name).value === '' ? null : Number($(name).value);
  const settings = {steps: value('steps'), guidance: value('guidance')};
  // Clips count on from the seed that was given last: without a new one they go on.
  if ($('seed').value !== '') settings.seed = value('seed');
  change = null;
  send({type: 'set', ...settings});
});

connect();
