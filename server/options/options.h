/* The options of `moed serve`. Flags, environment variables, the configuration file, --help and
 * deploy/moed.conf all come from one table (options_table.c). Later sources win: default, file,
 * environment (MOED_MAX_BATCH_ROWS), flag (--max-batch-rows). Within a source an option may be set
 * once. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/error.h"

struct options {
    char *models;                  /* model repository directory; required */
    char *host;                    /* 127.0.0.1 */
    uint64_t port;                 /* 8080; 0: any */
    char *grpc_port;               /* NULL: no gRPC; a number; 0: any */
    char *weights;                 /* stored | int8 | int4: matrices rounded */
    char *activations;             /* int8 | bf16 | f32: what matrices are multiplied with */
    char *load;                    /* map | copy */
    char *cors_origin;             /* NULL, or origins with commas between, or "*" */
    char *model_control;           /* none | poll | explicit */
    uint64_t model_poll_ms;        /* 15000 */
    char *load_model;              /* NULL, or names with commas between, or "*" */
    uint64_t strict_start;         /* 0: a model that cannot be served does not end the start */
    uint64_t loops;                /* 1: threads that read, answer and compute what is small */
    uint64_t threads;              /* compute threads; 0: the CPUs the cgroup and affinity allow */
    uint64_t max_batch_rows;       /* 64 */
    uint64_t max_sequences;        /* 16: of a language model that run at a time */
    uint64_t step_tokens;          /* 256: rows of one of its steps */
    uint64_t kv_cache_mb;          /* 1024: keys and values of all its sequences */
    char *kv_cache;                /* f16 | f32 */
    uint64_t max_queue_delay_us;   /* 0 */
    uint64_t max_queue_rows;       /* 4096, per model */
    uint64_t max_request_rows;     /* 1024 */
    char *non_finite;              /* refuse | accept: NaN and infinities in binary tensors */
    uint64_t max_body_bytes;       /* 64 MiB */
    uint64_t max_total_body_bytes; /* 512 MiB, of all requests being received and served */
    uint64_t max_connections;      /* 0: 1024, or as many as may be open */
    uint64_t max_connections_per_ip; /* 0: no limit */
    char *tokens;                    /* NULL, or the file of bearer tokens */
    uint64_t admin;                  /* 0: clients without a token change nothing */
    char *admin_listen;              /* NULL, or where metrics and administration are */
    char *tls_cert, *tls_key;        /* NULL: plain; PEM files */
    char *tls_client_ca;             /* NULL, or a PEM file */
    char *sandbox;                   /* on | off */
    uint64_t rate_limit;             /* 0: none; requests a second of one client address */
    uint64_t rate_burst;             /* 0: as many as rate_limit */
    uint64_t request_timeout_ms;     /* 30000: from a request's first byte to its last */
    uint64_t idle_timeout_ms;        /* 60000: a connection between requests */
    uint64_t queue_timeout_ms;       /* 10000: a request waiting for compute; then 504 */
    uint64_t drain_delay_ms;         /* 0: after SIGTERM, not ready but serving, before draining */
    uint64_t drain_timeout_ms;       /* 30000: then exit 1 with what is left unfinished */
    uint64_t
        max_expert_series; /* 4096: per-expert Prometheus series in all; above, aggregates only */
    uint64_t max_tags;     /* 16: per model; rows of any others are counted as "other" */
    char *state;           /* NULL, or the directory where routing statistics are kept */
    uint64_t state_interval_ms;  /* 60000 */
    char *log_format;            /* logfmt | json */
    uint64_t log_slow_ms;        /* 5000; 0: never */
    uint64_t log_max_per_second; /* 0: all */
    const char *trace_endpoint;  /* of a collector; NULL: nothing is traced */
    uint64_t trace_rate;         /* 1000 */
    char *log_level;             /* error | warning | info | debug; info logs every request */
};

/* Fills `options` from all four sources. `argv` are the arguments after the command's name. On
 * error the text names the source ("moed.conf line 7", "MOED_PORT", "--port"), the value and what
 * was expected. */
MUST_CHECK int options_init(struct options *options, int argc, char *const argv[],
                            struct error *err);
void options_close(struct options *options);

/* The number that grpc_port, which must be set, is; UINT64_MAX if it is none. */
uint64_t options_grpc_port(const struct options *options);

/* The options part of `moed help serve`: every option with its default, wrapped for a terminal. */
void options_help(FILE *out);

/* Writes the fully commented configuration file (deploy/moed.conf is its output). */
void options_sample(FILE *out);

#endif
