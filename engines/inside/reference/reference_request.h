/* What a client asks of the native reference server. Reading is pure: no socket, no clock. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_LIMIT_BYTES (64 * 1024)
#define BODY_LIMIT_BYTES (16 * 1024 * 1024)
#define ID_BYTES 36

/* An HTTP request. Its method does not matter: no path has two. */
typedef struct {
    char path[256];        /* without its query */
    char id[ID_BYTES + 1]; /* X-Request-Id, cut; with a question mark for what JSON would escape */
    bool is_last;          /* the client wants no further request on this connection */
    size_t head_bytes;     /* 0: the head has not all come */
    size_t body_bytes;
} Request;

/* The chat request in its body. */
typedef struct {
    bool is_streamed, has_usage;
    int64_t prompt_tokens; /* 4 bytes of a message's text are a token, rounded up message by message */
    int64_t max_tokens;    /* 0: not given */
    uint64_t seed;         /* the same for the same messages */
} Chat;

/* Both return NULL, or why the answer is status 400. */
const char *read_request(const char *buffer, size_t length, Request *request);
const char *read_chat(const char *body, size_t length, Chat *chat);
