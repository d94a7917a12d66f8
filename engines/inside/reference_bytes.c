/* Growing buffers, slices, the clock, and the end of the process. */
#include "reference.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

_Noreturn void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("reference_server: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(1);
}

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

void *zeroed(size_t length) {
    void *made = calloc(1, length);
    if (!made)
        die("no memory for %zu bytes", length);
    return made;
}

bool text_is(Text text, const char *expected) {
    return text.length == strlen(expected) && memcmp(text.at, expected, text.length) == 0;
}

/* Where `length` more bytes fit; the caller adds to bytes->length what it wrote. */
char *bytes_room(Bytes *bytes, size_t length) {
    size_t needed = bytes->length + length;
    if (needed > bytes->capacity) {
        size_t capacity = bytes->capacity * 2 > needed ? bytes->capacity * 2 : needed + 64;
        char *grown = realloc(bytes->at, capacity);
        if (!grown)
            die("no memory for %zu bytes", capacity);
        bytes->at = grown;
        bytes->capacity = capacity;
    }
    return bytes->at + bytes->length;
}

void bytes_add(Bytes *bytes, const void *content, size_t length) {
    if (length) {
        memcpy(bytes_room(bytes, length), content, length);
        bytes->length += length;
    }
}

void bytes_print(Bytes *bytes, const char *format, ...) {
    va_list values, again;
    va_start(values, format);
    va_copy(again, values);
    int length = vsnprintf(NULL, 0, format, values);
    vsnprintf(bytes_room(bytes, (size_t)length + 1), (size_t)length + 1, format, again);
    bytes->length += (size_t)length;
    va_end(again);
    va_end(values);
}

void bytes_drop(Bytes *bytes, size_t length) {
    bytes->length -= length;
    if (bytes->length)
        memmove(bytes->at, bytes->at + length, bytes->length);
}

void bytes_free(Bytes *bytes) {
    free(bytes->at);
    *bytes = (Bytes){0};
}

Text bytes_text(const Bytes *bytes) {
    return (Text){bytes->at, bytes->length};
}
