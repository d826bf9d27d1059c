/* What `gst-wan doctor` asks the engine library for: the machine and checkpoints, before anything is loaded.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WAN_SURVEY_H
#define WAN_SURVEY_H

#ifdef __cplusplus
extern "C" {
#endif

/** A JSON object in UTF-8, which stays until the thread's next call. Sizes are bytes. Where something fails,
 * the object has `error`, a sentence, and what was found before it.
 *
 * With NULL, of the machine: `version` of the engine, `libtorch` that it was built with, `cuda` that LibTorch
 * uses (not there without a GPU), `gpus` (`name`, `compute_capability`, `total`, `free`), `device` that
 * device=auto takes, `host_free`, and `remarks`: sentences on GPUs that are not used.
 *
 * With the directory of a checkpoint, of that: `variant`, `width`, `height`, `num_frames`; then `modes` of
 * memory on that device, or on two GPUs (`name`; `devices`, how many; `device`, of each of them, and `host`:
 * what it takes there with a clip of that size; `fits`; and, if the weights fit and videos have an end,
 * `clips`: for a few sizes, `width` and `height`, the most `frames` that fit, or 0), and `mode`, the one that
 * memory=auto takes. Weights are not read, but all their files are opened, which finds those that are missing
 * or cut off. */
const char *wan_survey(const char *model_dir);

#ifdef __cplusplus
}
#endif

#endif
