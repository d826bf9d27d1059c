/* gst-wan: the engine's C interface, the one header that both the plugin and the engine include.
 *
 * The plugin opens libwan-engine.so with g_module_open, looks up WAN_ENGINE_ENTRY and asks for the interface
 * of WAN_ENGINE_ABI. No exception crosses it: every call that can fail returns a WanStatus and fills a
 * WanError with one sentence for the user.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WAN_ENGINE_H
#define WAN_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Raised by every change of this header. */
#define WAN_ENGINE_ABI 9
/** Name of the library's entry, a WanEngineEntry. */
#define WAN_ENGINE_ENTRY "wan_engine"

typedef enum WanStatus {
  WAN_OK,
  WAN_NOT_FOUND,     /* a file or directory is not there */
  WAN_INVALID,       /* a file, tensor, size or value is wrong */
  WAN_OUT_OF_MEMORY, /* the device or the host has too little memory for what was asked */
  WAN_DEVICE,        /* the device is absent or failed */
  WAN_LOST,          /* a worker is not there or was lost: it may come back */
  WAN_CANCELLED,     /* WanCallbacks.cancelled or .frames asked to stop */
  WAN_INTERNAL       /* a bug or an unforeseen failure of a library */
} WanStatus;

typedef struct WanError {
  char message[1024]; /* UTF-8, one sentence */
  const char *file;   /* static: where in the engine's sources it arose; NULL where that is not known */
  int32_t line;
} WanError;

typedef enum WanDtype { WAN_DTYPE_AUTO, WAN_DTYPE_FLOAT32, WAN_DTYPE_BFLOAT16 } WanDtype;

/** Of the experts' large matrices. On the CPU both others are slower than NONE. */
typedef enum WanQuantization {
  WAN_QUANTIZATION_NONE,
  WAN_QUANTIZATION_FP8,   /* on a GPU it needs bfloat16 and FP8 tensor cores */
  WAN_QUANTIZATION_STORED /* as a GGUF file has them; each is expanded when it is computed with */
} WanQuantization;

/** Where the experts' weights are while a clip is made. On the CPU all but SPLIT stand for RESIDENT. */
typedef enum WanMemoryMode {
  WAN_MEMORY_AUTO,       /* the first of the others that fits the free memory of the GPU and of the host */
  WAN_MEMORY_RESIDENT,   /* both experts on the GPU */
  WAN_MEMORY_ONE_EXPERT, /* one on the GPU, the other in page-locked host memory until its steps come */
  WAN_MEMORY_STREAM, /* in page-locked host memory; blocks come to the GPU while the one before computes */
  WAN_MEMORY_SPLIT   /* the one on the first half of the devices, the other on the second half, which have
                        their steps by turns: needs an even number of devices, and no host memory */
} WanMemoryMode;

/** What an expert's forward may take over from one before, an approximation. */
typedef enum WanCache {
  WAN_CACHE_NONE,
  WAN_CACHE_FIRST_BLOCK /* what the blocks behind the first add, while the first adds about the same */
} WanCache;

typedef enum WanScheduler { WAN_SCHEDULER_AUTO, WAN_SCHEDULER_UNIPC, WAN_SCHEDULER_EULER } WanScheduler;

/** The pictures that a clip may be made from. */
typedef enum WanPictureKind {
  WAN_PICTURE_FIRST, /* what the clip begins with */
  WAN_PICTURE_LAST   /* what it ends with */
} WanPictureKind;
#define WAN_PICTURE_KINDS 2

typedef enum WanPictureUse { WAN_PICTURE_REFUSED, WAN_PICTURE_OPTIONAL, WAN_PICTURE_REQUIRED } WanPictureUse;

/** RGB, 8 bits a channel, full range, square pixels, of any size. */
typedef struct WanPicture {
  const uint8_t *rgb;    /* the uppermost row first */
  int32_t width, height; /* pixels, 1 to 65536 */
  size_t stride;         /* bytes from one row to the next */
} WanPicture;

/** What a clip of a stream begins from. */
typedef enum WanContinuity {
  WAN_CONTINUITY_NONE,      /* its first picture, or nothing */
  WAN_CONTINUITY_LAST_FRAME /* the last frame of the stream's clip before: only the frames behind it leave.
                               The first clip of a stream begins as with NONE, and so does one that has a
                               first picture; those after it continue it. */
} WanContinuity;

/** How a section of an endless video follows the one before where its prompt is another. */
typedef enum WanPromptSwitch {
  WAN_SWITCH_AUTO,    /* the checkpoint's (WanDefaults.prompt_switch) */
  WAN_SWITCH_RECACHE, /* what is remembered of the video is seen as if it had been made from the new prompt */
  WAN_SWITCH_CROSS,   /* what is remembered stays as it is: the video changes slowly */
  WAN_SWITCH_CUT /* a new scene: most families forget all before it, so that it is what a video of its own
                    would begin with */
} WanPromptSwitch;

typedef enum WanPixelFormat {
  WAN_PIXEL_NV12,
  WAN_PIXEL_I420,
  WAN_PIXEL_RGB,
  WAN_PIXEL_RGBX, /* also RGBA: the fourth byte is 255 */
  WAN_PIXEL_BGRX  /* also BGRA */
} WanPixelFormat;

typedef enum WanColorMatrix { WAN_MATRIX_BT601, WAN_MATRIX_BT709 } WanColorMatrix;

/** How one frame lies in memory: GstVideoInfo's offsets and strides, in bytes. */
typedef struct WanPixelLayout {
  WanPixelFormat format;
  WanColorMatrix matrix; /* of NV12 and I420 */
  bool full_range;       /* of NV12 and I420 */
  int32_t width, height; /* pixels, multiples of WanDefaults.size_multiple */
  size_t offset[3];
  int32_t stride[3];
  size_t size; /* bytes of a whole frame */
} WanPixelLayout;

/** What a checkpoint suggests for everything that Diffusers leaves to the caller. */
typedef struct WanDefaults {
  int32_t width, height, num_frames;
  int32_t fps_n, fps_d;
  int32_t steps;
  double guidance_scale, guidance_scale_2; /* equal where the checkpoint has one transformer */
  double flow_shift;
  WanScheduler scheduler;  /* UNIPC or EULER */
  int32_t size_multiple;   /* width and height must be multiples of it, pixels */
  int32_t frames_multiple; /* num_frames must be 1 + a multiple of it, or 0 where the model is endless */
  char variant[32]; /* what the checkpoint is: "T2V-A14B", "I2V-A14B", "TI2V-5B", "Wan2.1-T2V", "Wan2.1-I2V"
                       or "Wan2.1-FLF2V" */
  WanPictureUse pictures[WAN_PICTURE_KINDS]; /* of each WanPictureKind */
  /** A causal model: it makes a video section by section, each from a prompt of its own, until it is told to
   * stop. num_frames is 0, scheduler AUTO (it has a sampler of its own), and both guidance scales are 1. */
  bool endless;
  int32_t section_frames;        /* of the video; 0 where the model is not endless, likewise below */
  int32_t first_section_frames;  /* of the first section, which has fewer */
  int32_t section_latents;       /* latent frames of a section, each a WanFrames */
  WanPromptSwitch prompt_switch; /* RECACHE, CROSS or CUT */
} WanDefaults;

typedef enum WanStage {
  WAN_STAGE_LOAD,
  WAN_STAGE_TEXT,
  WAN_STAGE_PICTURES, /* of clips that are made from pictures */
  WAN_STAGE_DENOISE,
  WAN_STAGE_DECODE
} WanStage;

typedef struct WanProgress {
  WanStage stage;
  int32_t step, steps; /* done and in all: per cent (LOAD), prompts (TEXT), encodings (PICTURES: by the VAE,
                          in tiles each, and by CLIP), steps (DENOISE), chunks (DECODE; in tiles, of each) */
  double seconds;      /* since the stage began */
  int32_t cached;      /* DENOISE: forwards so far (up to two a step) shortened by WanGenerateOptions.cache */
} WanProgress;

/** One decoded chunk: num_frames frames of WanPixelLayout.size bytes, one after the other, complete and at
 * rest. */
typedef struct WanFrames {
  uint8_t *data;     /* in host memory, or in that of the model's GPU (WanGenerateOptions.on_device) */
  size_t frame_size; /* bytes from one frame to the next */
  int32_t num_frames;
  int32_t first_frame; /* index in the clip */
  int32_t chunk;       /* index of the latent frame */
  int32_t section;     /* index of the section, of an endless video; else 0 */
} WanFrames;

/** The next section of an endless video: the engine asks, and the receiver answers in the same struct. */
typedef struct WanSection {
  int32_t index;       /* from 1 on: the first section is made from the options */
  int32_t first_frame; /* index in the video */

  /* The answer, which is filled in as if nothing changed. */
  const char *prompt; /* UTF-8, of this section and those behind it; must stay until the next call or the end
                         of generate; NULL: as before */
  WanPromptSwitch
      prompt_switch; /* where there is a prompt; CUT also without: a new scene from the same one */
  bool picture;  /* a new scene, which begins from WanCallbacks.picture(FIRST): for models that take one */
  uint64_t seed; /* of this section and those behind it. A section's noise depends on it and on the section's
                    place in its scene alone, so that what happened before does not change it. */
} WanSection;

typedef enum WanLogLevel {
  WAN_LOG_WARNING, /* the result may not be what was meant: for the user */
  WAN_LOG_INFO,    /* a choice: device, memory mode, files */
  WAN_LOG_DEBUG
} WanLogLevel;

typedef struct WanCallbacks {
  void *user;
  /** One sentence, UTF-8. Called on the calling thread. NULL stands for silence. */
  void (*log)(void *user, WanLogLevel level, const char *message);
  /** Called on the calling thread; of the stage DECODE of an endless video also on another, at the same time.
   */
  void (*progress)(void *user, const WanProgress *progress);
  /** Polled between layers and chunks, from any thread: true stops the call with WAN_CANCELLED. */
  bool (*cancelled)(void *user);
  /** Takes the chunk, whatever it returns (give it back with frames_free). In order, on a thread of the
   * engine; may block, which holds back the decoder, but not once cancelled() would say true. False stops the
   * call with WAN_CANCELLED. */
  bool (*frames)(void *user, WanFrames *frames);
  /** With WanGenerateOptions.fade_frames, asked once a clip on the calling thread, before its last
   * fade_frames frames would leave: whether another clip follows. True keeps them in the model, for the next
   * clip to fade in over. NULL stands for false. */
  bool (*followed)(void *user);
  /** Asked on the calling thread for each picture of WanGenerateOptions.pictures, before the text is encoded:
   * fills `picture`, whose pixels must stay until the next call of it or the end of generate. May block, but
   * not once cancelled() would say true. False stops the call with WAN_CANCELLED. */
  bool (*picture)(void *user, WanPictureKind kind, WanPicture *picture);
  /** Of an endless model, asked on the calling thread before each section but the first, when the one before
   * has been denoised: its frames may still have to be decoded. May block, but not once
   * cancelled() would say true. False ends the video, and generate returns WAN_OK when all frames are handed
   * over. NULL: the video goes on as it is. */
  bool (*next_section)(void *user, WanSection *section);
} WanCallbacks;

/** A low-rank addition to the experts' weights, merged when they are loaded. */
typedef struct WanLora {
  const char *path;  /* a .safetensors file, with the names of PEFT, kohya, the original Wan or ComfyUI */
  double strength;   /* for transformer, A14B's high-noise expert; 0: not for it */
  double strength_2; /* for transformer_2, the low-noise expert; 0: not for it */
} WanLora;

typedef struct WanLoadOptions {
  const char *model_dir; /* Diffusers', of the original release, or of single files (docs/checkpoints.md) */
  const char *device;    /* "auto", "cpu", "cuda" or "cuda:N", or several that make a video together:
                            "cuda:0,1", "cpu,cpu" */
  const char *decoder_device; /* where prompts and pictures are encoded and frames are decoded: one device of
                                 the same kind, while the others denoise; NULL: the first of `device`, by
                                 turns with denoising */
  const char *worker; /* HOST or HOST:PORT of a gst-wan-worker with the same checkpoint, which computes the
                         predictions of negative prompts; NULL: none. The environment variable GST_WAN_SECRET
                         is that of both. */
  WanDtype dtype;     /* AUTO: bfloat16 on CUDA, float32 on the CPU */
  WanQuantization quantization;
  WanMemoryMode memory;
  const WanLora *loras;
  size_t num_loras;
  const char *decoder; /* "full": the VAE's; "tiny": taew2_1.safetensors or taew2_2.safetensors in the
                          directory; else the path of such a file; NULL: full */
} WanLoadOptions;

typedef struct WanGenerateOptions {
  const char *prompt, *negative_prompt; /* UTF-8 */
  uint64_t seed;
  int32_t num_frames,
      steps;           /* num_frames of an endless model: at most so many, 0: as many as are asked for */
  int32_t used_frames; /* of num_frames, only the first so many are decoded; 0: all */
  int32_t fade_frames; /* crossfade with the clip of `stream` before, if that kept its last frames for it, and
                          with the one after; at most half of the frames that are decoded; 0: cut */
  bool on_device;      /* the frames stay on the GPU, in its primary context: needs a model on CUDA */
  double guidance_scale, guidance_scale_2;
  double flow_shift;
  WanScheduler scheduler;
  const double *sigmas; /* noise level of each step before the shift, above 0, up to 1 and falling, in place
                           of `steps`; a timestep divided by 1000 is one; NULL: the scheduler's own */
  size_t num_sigmas;
  WanCache cache;
  double cache_threshold; /* FIRST_BLOCK: relative change of what the first block adds up to which the rest is
                             taken over */
  WanPixelLayout layout;  /* width and height say the video's size */
  uint64_t stream; /* clips of the same number fade into each other or continue each other, also where clips
                      of others come between: for a model that is used by turns */
  bool pictures[WAN_PICTURE_KINDS]; /* of each WanPictureKind: whether WanCallbacks.picture has it */
  WanContinuity continuity;     /* LAST_FRAME: for models that take a first picture, without fade_frames */
  double continuity_correction; /* LAST_FRAME: how far the colours of the frame that the clip begins with
                                   (mean and deviation of each channel) are moved back to those of the last
                                   clip that began otherwise, 0 to 1; 0: not at all */
} WanGenerateOptions;

typedef struct WanMemory {
  uint64_t gpu_bytes, gpu_peak_bytes; /* held by tensors on the model's devices; 0 on the CPU */
  uint64_t pinned_bytes;              /* page-locked host memory */
  uint64_t pool_bytes; /* for decoded frames, in use or not: page-locked host memory where there is a GPU, or
                          memory of the GPU (WanGenerateOptions.on_device) */
  WanMemoryMode mode;  /* RESIDENT, ONE_EXPERT, STREAM or SPLIT */
  int32_t guidance_devices, sequence_devices; /* of the newest clip: 2 where prompt and negative prompt were
                                                 computed on devices of their own, and how many computed each
                                                 of the two together; 1 and 1 on one device */
  char device[256]; /* "cpu", or as "cuda:0 (NVIDIA H100 80GB HBM3)" or "cuda:0,1 (NVIDIA H200)"; with a
                       worker as "cpu; worker 10.0.0.2:5890: cpu" */
} WanMemory;

typedef struct WanModel WanModel;

typedef struct WanEngineApi {
  uint32_t abi;        /* WAN_ENGINE_ABI */
  const char *version; /* of the project */

  /** Reads the JSON files of a checkpoint and the headers of single files, no weights. */
  WanStatus (*describe)(const char *model_dir, WanDefaults *defaults, WanError *error);
  /** Whether the checkpoint can make a clip of these options, as far as that can be known without weights:
   * WAN_INVALID says why not. A layout of width 0 and height 0 stands for a size that is not known yet.
   * WAN_DEVICE for on_device, unless device=auto would choose the first GPU. */
  WanStatus (*check)(const char *model_dir, const WanGenerateOptions *options, WanError *error);
  /** Loads a checkpoint. Uses callbacks' progress, cancelled and log. */
  WanStatus (*load)(const WanLoadOptions *options, const WanCallbacks *callbacks, WanModel **model,
                    WanError *error);
  /** Makes one clip, or an endless video; one call at a time on a model. Whatever it returns, the model can
   * be used again. */
  WanStatus (*generate)(WanModel *model, const WanGenerateOptions *options, const WanCallbacks *callbacks,
                        WanError *error);
  /** Callable from any thread, also while generate runs. */
  void (*memory)(const WanModel *model, WanMemory *memory);
  /** NULL is allowed. */
  void (*model_free)(WanModel *model);
  /** Callable from any thread, also after model_free. The memory is used again at once: what reads it on a
   * GPU must be done. */
  void (*frames_free)(WanFrames *frames);
} WanEngineApi;

/** Returns NULL where the library does not serve `abi`. */
typedef const WanEngineApi *(*WanEngineEntry)(uint32_t abi);
const WanEngineApi *wan_engine(uint32_t abi);

#ifdef __cplusplus
}
#endif

#endif
