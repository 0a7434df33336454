// Times llama.cpp through its public interface, or lets it quantize a file; prints one JSON object.
//
//   llama-peer bench MODEL THREADS CONTEXT FLASH(-1|0|1) GENERATE REPETITIONS PROMPT…
//   llama-peer quantize INPUT OUTPUT FTYPE PURE(0|1) THREADS
//
// DWINDLE_PEER_BACKENDS names the folder of ggml's processor backends where they are loaded at run time.

#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ggml-backend.h"
#include "llama.h"

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "llama-peer: %s\n", what);
    exit(1);
}

// Lines that tell which backend and which buffers are used go to stderr; the rest of the log is dropped.
static void log_some(enum ggml_log_level level, const char *text, void *unused) {
    (void)unused;
    if (level >= GGML_LOG_LEVEL_ERROR || strstr(text, "loaded CPU backend") || strstr(text, "buffer size")) fputs(text, stderr);
}

static unsigned long long status(const char *key) {
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key))) sscanf(line + strlen(key), "%llu", &kib);
    if (file) fclose(file);
    return kib * 1024;
}

static struct llama_context *context;
static int vocabulary;

// The same tokens as `dwindle bench` takes.
static void read_tokens(int count, llama_token (*token_at)(int)) {
    llama_token *tokens = malloc(sizeof *tokens * (size_t)count);
    for (int i = 0; i < count; i++) tokens[i] = token_at(i);
    if (llama_decode(context, llama_batch_get_one(tokens, count))) fail("llama_decode failed");
    llama_synchronize(context);
    free(tokens);
}

static llama_token prompt_token(int i) { return (llama_token)(((unsigned)i * 7919u + 11u) % (unsigned)vocabulary); }
static llama_token generated_token(int i) { return (llama_token)(((unsigned)i * 31u + 5u) % (unsigned)vocabulary); }

static void start_afresh(void) { llama_memory_clear(llama_get_memory(context), false); }

// A prompt read at once gives the logits that it gives when its last token is read alone.
static void verify(void) {
    float *whole = malloc(sizeof *whole * (size_t)vocabulary);
    start_afresh();
    read_tokens(8, prompt_token);
    memcpy(whole, llama_get_logits_ith(context, -1), sizeof *whole * (size_t)vocabulary);
    start_afresh();
    read_tokens(7, prompt_token);
    llama_token last = prompt_token(7);
    if (llama_decode(context, llama_batch_get_one(&last, 1))) fail("llama_decode failed");
    const float *single = llama_get_logits_ith(context, -1);
    float low = INFINITY, high = -INFINITY, apart = 0;
    for (int i = 0; i < vocabulary; i++) {
        if (!isfinite(whole[i]) || !isfinite(single[i])) fail("the logits are not finite: nothing is worth timing");
        low = fminf(low, whole[i]);
        high = fmaxf(high, whole[i]);
        apart = fmaxf(apart, fabsf(whole[i] - single[i]));
    }
    if (!(high > low) || apart > 0.05f * (high - low)) fail("prefill and decode disagree: nothing is worth timing");
    free(whole);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_rates(double *rates, int count) {
    qsort(rates, (size_t)count, sizeof *rates, ascending);
    printf("{\"min\": %.3f, \"median\": %.3f, \"max\": %.3f}", rates[0], rates[count / 2], rates[count - 1]);
}

static void bench(int argc, char **argv) {
    if (argc < 9) fail("bench MODEL THREADS CONTEXT FLASH GENERATE REPETITIONS PROMPT…");
    int threads = atoi(argv[3]), generate = atoi(argv[6]), repetitions = atoi(argv[7]);
    double *rates = malloc(sizeof *rates * (size_t)(repetitions + 1));
    double started = now();
    struct llama_model_params model_options = llama_model_default_params();
    struct llama_model *model = llama_model_load_from_file(argv[2], model_options);
    if (!model) fail("the model cannot be loaded");
    vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct llama_context_params options = llama_context_default_params();
    options.n_ctx = (uint32_t)atoi(argv[4]);
    options.n_batch = options.n_ubatch = 512;
    options.n_threads = options.n_threads_batch = threads;
    options.flash_attn_type = (enum llama_flash_attn_type)atoi(argv[5]);
    options.no_perf = true;
    context = llama_init_from_model(model, options);
    if (!context) fail("there is no context");
    double loaded = now();
    read_tokens(8, prompt_token);
    llama_get_logits_ith(context, -1);
    double first = now();
    verify();

    printf("{\"load_seconds\": %.4f, \"first_token_seconds\": %.4f, \"prefill\": [", loaded - started, first - loaded);
    for (int i = 8; i < argc; i++) {
        int tokens = atoi(argv[i]);
        for (int round = -1; round < repetitions; round++) {
            start_afresh();
            double begin = now();
            read_tokens(tokens, prompt_token);
            if (round >= 0) rates[round] = tokens / (now() - begin);
        }
        printf("%s{\"tokens\": %d, \"tokens_per_second\": ", i > 8 ? ", " : "", tokens);
        print_rates(rates, repetitions);
        printf("}");
    }
    for (int round = -1; round < repetitions; round++) {
        start_afresh();
        read_tokens(8, prompt_token);
        double begin = now();
        for (int token = 0; token < generate; token++) {
            llama_token next = generated_token(token);
            if (llama_decode(context, llama_batch_get_one(&next, 1))) fail("llama_decode failed");
            llama_get_logits_ith(context, -1);
        }
        if (round >= 0) rates[round] = generate / (now() - begin);
    }
    printf("], \"decode\": {\"tokens\": %d, \"tokens_per_second\": ", generate);
    print_rates(rates, repetitions);
    printf("}, \"weight_bytes\": %llu, \"peak_bytes\": %llu, \"anonymous_bytes\": %llu, \"version\": \"%s\", \"system\": \"%s\"}\n",
           (unsigned long long)llama_model_size(model), status("VmHWM:"), status("RssAnon:"), llama_version(), llama_print_system_info());
    // The process ends here; what it holds goes with it.
}

static void quantize(int argc, char **argv) {
    if (argc != 7) fail("quantize INPUT OUTPUT FTYPE PURE THREADS");
    struct llama_model_quantize_params options = llama_model_quantize_default_params();
    options.ftype = (enum llama_ftype)atoi(argv[4]);
    options.pure = atoi(argv[5]) != 0;
    options.nthread = atoi(argv[6]);
    double started = now();
    if (llama_model_quantize(argv[2], argv[3], &options)) fail("llama_model_quantize failed");
    printf("{\"seconds\": %.4f, \"peak_bytes\": %llu, \"version\": \"%s\"}\n", now() - started, status("VmHWM:"), llama_version());
}

int main(int argc, char **argv) {
    const char *backends = getenv("DWINDLE_PEER_BACKENDS");
    llama_log_set(log_some, NULL);
    if (backends) ggml_backend_load_all_from_path(backends);
    llama_backend_init();
    if (argc > 2 && !strcmp(argv[1], "bench")) bench(argc, argv);
    else if (argc > 2 && !strcmp(argv[1], "quantize")) quantize(argc, argv);
    else fail("bench or quantize");
    return 0;
}
