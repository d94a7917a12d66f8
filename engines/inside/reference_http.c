/* HTTP/1.1 as this server takes and gives it: requests with a Content-Length, heads, errors as JSON. */
#include "reference.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    int status;
    const char *phrase;
} PHRASES[] = {
    {200, "OK"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {413, "Request Entity Too Large"},
    {422, "Unprocessable Entity"},
    {425, "Too Early"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
};

static const char *phrase_of(int status) {
    for (size_t k = 0; k < sizeof PHRASES / sizeof *PHRASES; k++)
        if (PHRASES[k].status == status)
            return PHRASES[k].phrase;
    return "Error";
}

void refuse(Refusal *refusal, int status, const char *format, ...) {
    char message[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    *refusal = (Refusal){.status = status};
    bytes_add(&refusal->message, message, strlen(message));
}

void add_error_json(Bytes *out, const Refusal *refusal) {
    bytes_print(out, "{\"error\": {\"message\": \"");
    json_add_escaped(out, bytes_text(&refusal->message));
    bytes_print(out, "\", \"type\": \"%s\", ",
                refusal->status < 500 ? "invalid_request_error" : "server_error");
    if (refusal->code)
        bytes_print(out, "\"code\": \"%s\"}}", refusal->code);
    else
        bytes_print(out, "\"code\": %d}}", refusal->status);
}

void add_head(Bytes *out, int status, const char *content_type, const char *framing, Text request_id) {
    bytes_print(out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%s\r\n", status, phrase_of(status), content_type,
                framing);
    if (request_id.length) {
        bytes_print(out, "X-Request-Id: ");
        bytes_add(out, request_id.at, request_id.length);
        bytes_print(out, "\r\n");
    }
    bytes_print(out, "\r\n");
}

void add_whole(Bytes *out, int status, const char *content_type, Text body, Text request_id) {
    char framing[64];
    snprintf(framing, sizeof framing, "Content-Length: %zu", body.length);
    add_head(out, status, content_type, framing, request_id);
    bytes_add(out, body.at, body.length);
}

/* The next line without its end, of a head that ends in an empty line. */
static Text next_line(const char **at) {
    const char *end = *at;
    while (end[0] != '\r' || end[1] != '\n')
        end++;
    Text line = {*at, (size_t)(end - *at)};
    *at = end + 2;
    return line;
}

static bool read_first_line(Text line, Request *request) {
    const char *at = line.at, *end = line.at + line.length;
    while (at < end && *at >= 'A' && *at <= 'Z')
        at++;
    request->method = (Text){line.at, (size_t)(at - line.at)};
    if (at == line.at || at + 1 >= end || at[0] != ' ' || at[1] != '/')
        return false;
    const char *target = ++at;
    while (at < end && *at >= '!' && *at <= '~')
        at++;
    const char *query = memchr(target, '?', (size_t)(at - target));
    request->path = (Text){target, (size_t)((query ? query : at) - target)};
    return text_is((Text){at, (size_t)(end - at)}, " HTTP/1.1");
}

static bool is_token(unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+.^_`|~-", c));
}

static bool read_field(Text line, Text *name, Text *value) {
    const char *at = line.at, *end = line.at + line.length;
    while (at < end && is_token((unsigned char)*at))
        at++;
    *name = (Text){line.at, (size_t)(at - line.at)};
    if (!name->length || at >= end || *at != ':')
        return false;
    for (at++; at < end && (*at == ' ' || *at == '\t');)
        at++;
    while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *value = (Text){at, (size_t)(end - at)};
    for (; at < end; at++)
        if (((unsigned char)*at < 0x20 && *at != '\t') || *at == 0x7F)
            return false;
    return true;
}

static bool is_called(Text text, const char *name) {
    return text.length == strlen(name) && strncasecmp(text.at, name, text.length) == 0;
}

static bool is_length(Text value) {
    size_t digits = 0;
    while (digits < value.length && value.at[digits] >= '0' && value.at[digits] <= '9')
        digits++;
    return digits == value.length && digits >= 1 && digits <= 18;
}

/* Reads the head, which ends at `end`; the body's length, or -1 where it is refused. */
static long long read_head(const char *at, const char *end, Request *request, Refusal *refusal) {
    Text name, value, length = TEXT("0");
    bool is_encoded = false, is_http = read_first_line(next_line(&at), request);
    while (is_http && at < end) {
        is_http = read_field(next_line(&at), &name, &value);
        if (is_called(name, "content-length"))
            length = value;
        else if (is_called(name, "transfer-encoding"))
            is_encoded = true;
        else if (is_called(name, "connection"))
            request->is_last = is_called(value, "close");
        else if (is_called(name, "x-request-id"))
            request->request_id = value;
    }
    if (!is_http || !is_length(length))
        refuse(refusal, 400, "not an HTTP/1.1 request");
    else if (is_encoded)
        refuse(refusal, 411, "the request needs a Content-Length");
    else if (strtoll(length.at, NULL, 10) > BODY_LIMIT_BYTES)
        refuse(refusal, 413, "the body is longer than %d bytes", BODY_LIMIT_BYTES);
    else
        return strtoll(length.at, NULL, 10);
    return -1;
}

/* Looks for a whole request at the buffer's beginning, of which it is a slice. `scanned` bytes are known not
   to hold the end of its head: 0 for a new one, then what the last call left there. */
Taken take_request(Text buffer, size_t *scanned, Request *request, Refusal *refusal) {
    size_t from = *scanned > 3 ? *scanned - 3 : 0;
    const char *end = buffer.length ? memmem(buffer.at + from, buffer.length - from, "\r\n\r\n", 4) : NULL;
    *scanned = end ? 0 : buffer.length;
    if (!end && buffer.length <= HEAD_LIMIT_BYTES)
        return INCOMPLETE;
    if (!end || end - buffer.at > HEAD_LIMIT_BYTES) {
        refuse(refusal, 431, "the request's head is too long");
        return REFUSED;
    }
    *request = (Request){0};
    long long length = read_head(buffer.at, end, request, refusal);
    if (length < 0)
        return REFUSED;
    request->body = (Text){end + 4, (size_t)length};
    request->length = (size_t)(end + 4 - buffer.at) + (size_t)length;
    return buffer.length < request->length ? INCOMPLETE : COMPLETE;
}
