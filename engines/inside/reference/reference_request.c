#include "reference_request.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads `name: value`. Returns false for a line that is no header, or one that this server cannot follow. */
static bool read_header(char *line, Request *request) {
    char *value = strchr(line, ':'), *end;
    if (!value || value == line || strcspn(line, " \t") < (size_t)(value - line))
        return false;
    *value++ = 0;
    value += strspn(value, " \t");
    value[strcspn(value, " \t")] = 0; /* none of these values has blanks in it */
    if (strcasecmp(line, "content-length") == 0) {
        request->body_bytes = strtoull(value, &end, 10);
        return isdigit((unsigned char)*value) && !*end && request->body_bytes <= BODY_LIMIT_BYTES;
    }
    if (strcasecmp(line, "connection") == 0)
        request->is_last = strcasecmp(value, "close") == 0;
    if (strcasecmp(line, "x-request-id") == 0)
        for (int k = 0; k < ID_BYTES && value[k]; k++)
            request->id[k] = value[k] > ' ' && value[k] <= '~' && !strchr("\"\\", value[k]) ? value[k] : '?';
    return strcasecmp(line, "transfer-encoding") != 0;
}

/* Reads the head of the request that the buffer begins with. */
const char *read_request(const char *buffer, size_t length, Request *request) {
    static char head[HEAD_LIMIT_BYTES + 1];
    char *rest = head, *line;
    int parsed = 0;
    *request = (Request){0};
    const char *end = length ? memmem(buffer, length, "\r\n\r\n", 4) : NULL;
    if ((end ? (size_t)(end - buffer) : length) > HEAD_LIMIT_BYTES)
        return "the request's head is too long";
    if (!end)
        return NULL;
    request->head_bytes = (size_t)(end - buffer) + 4;
    *(char *)mempcpy(head, buffer, (size_t)(end - buffer)) = 0;
    line = strsep(&rest, "\r");
    sscanf(line, "%*[A-Z] %255[!-~] HTTP/1.1%n", request->path, &parsed);
    bool is_http = parsed && !line[parsed] && request->path[0] == '/';
    request->path[strcspn(request->path, "?")] = 0;
    while (is_http && (line = strsep(&rest, "\r")))
        is_http = *line == '\n' && read_header(line + 1, request);
    return is_http ? NULL : "not an HTTP/1.1 request whose Content-Length is up to 16 MiB";
}

/* --- the chat request, as JSON -------------------------------------------------------------------

   This scans for a few fields. It checks what it needs, and that the body is whole; the Python server is as
   strict as JSON is. A zero ends the body, and nothing here steps over it. */

static const char *past_blanks(const char *at) { return at + strspn(at, " \t\r\n"); }

static const char *past_string(const char *at) {
    at++;
    while (*(at += strcspn(at, "\"\\")) == '\\')
        at += at[1] ? 2 : 1;
    return at + (*at == '"');
}

/* Returns what follows the value, or "" if the body ends within it. */
static const char *past_value(const char *at) {
    int depth = 0;
    do {
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        at = *at == '"' ? past_string(at) : at + (*at != 0);
    } while (*at && (depth > 0 || !strchr(",:]} \t\r\n", *at)));
    return depth > 0 ? "" : at;
}

/* Returns the first item, from after the bracket, or the next one, from after the last; NULL: there is none.
 */
static const char *item_from(const char *at) {
    at = past_blanks(at);
    at = past_blanks(at + (*at == ','));
    return *at && *at != ']' && *at != '}' ? at : NULL;
}

/* Finds the values of these members of an object; absent ones are null. */
static void find(const char *object, int count, const char *const names[], const char *values[]) {
    for (int k = 0; k < count; k++)
        values[k] = "null";
    for (const char *name = item_from(object + 1), *value; name && *name == '"';
         name = item_from(past_value(value))) {
        value = past_blanks(past_string(name));
        value = past_blanks(value + (*value == ':'));
        for (int k = 0; k < count; k++) {
            size_t length = strlen(names[k]);
            if (strncmp(name + 1, names[k], length) == 0 && name[1 + length] == '"')
                values[k] = value;
        }
    }
}

static bool is_null(const char *value) { return strncmp(value, "null", 4) == 0; }

static bool read_flag(const char *value, bool *flag) {
    *flag = strncmp(value, "true", 4) == 0;
    return *flag || is_null(value) || strncmp(value, "false", 5) == 0;
}

/* Returns the code unit of the \uXXXX that begins here, or -1. */
static long code_unit(const char *at) {
    char digits[5] = {0};
    if (strncmp(at, "\\u", 2) != 0)
        return -1;
    strncpy(digits, at + 2, 4);
    return strtol(digits, NULL, 16);
}

/* Returns the length of a string's text in UTF-8. Half a surrogate pair counts as one byte. */
static int64_t text_bytes(const char *string) {
    const char *end = past_string(string) - 1;
    int64_t bytes = 0;
    for (const char *at = string + 1; at < end;) {
        long unit = code_unit(at);
        at += unit >= 0 ? 6 : *at == '\\' ? 2 : 1;
        bool is_high = unit >= 0xD800 && unit < 0xDC00, is_low = unit >= 0xDC00 && unit < 0xE000;
        if (is_high && (code_unit(at) & ~0x3FFL) == 0xDC00) {
            at += 6;
            bytes += 4;
        } else {
            bytes += unit < 0x80 || is_high || is_low ? 1 : unit < 0x800 ? 2 : 3;
        }
    }
    return bytes;
}

/* Adds the text of a message. Returns false if it has none, or no role. */
static bool count_message(const char *message, int64_t *prompt_tokens) {
    const char *values[2], *text;
    int64_t bytes = 0;
    if (*message != '{')
        return false;
    find(message, 2, (const char *const[]){"role", "content"}, values);
    const char *role = values[0], *content = values[1];
    if (*content == '"')
        bytes = text_bytes(content);
    else if (*content == '[')
        for (const char *part = item_from(content + 1); part; part = item_from(past_value(part))) {
            if (*part != '{')
                return false;
            find(part, 1, (const char *const[]){"text"}, &text);
            if (*text != '"')
                return false;
            bytes += text_bytes(text);
        }
    else if (!is_null(content))
        return false;
    *prompt_tokens += (bytes + 3) / 4;
    return *role == '"';
}

/* Reads a body that a zero follows. */
const char *read_chat(const char *body, size_t length, Chat *chat) {
    enum { MESSAGES, MAX_TOKENS, STREAM, STREAM_OPTIONS, COUNT };
    static const char *const names[] = {"messages", "max_tokens", "stream", "stream_options"};
    const char *values[COUNT], *object = past_blanks(body), *message;
    *chat = (Chat){0};
    if (*object != '{' || past_blanks(past_value(object)) != body + length)
        return "the body is not a whole JSON object";
    find(object, COUNT, names, values);
    message = *values[MESSAGES] == '[' ? item_from(values[MESSAGES] + 1) : NULL;
    if (!message)
        return "messages: must be a list with one message at least";
    for (; message; message = item_from(past_value(message)))
        if (!count_message(message, &chat->prompt_tokens))
            return "messages: each needs a role, and text as its content";
    chat->seed = 0xcbf29ce484222325; /* FNV-1a */
    for (const char *at = values[MESSAGES], *end = past_value(at); at < end; at++)
        chat->seed = (chat->seed ^ (unsigned char)*at) * 0x100000001b3;
    const char *limit = values[MAX_TOKENS];
    size_t digits = strspn(limit, "0123456789");
    if (!is_null(limit) && (*limit == '0' || !digits || strchr(".eE", limit[digits])))
        return "max_tokens: must be a whole number from 1";
    chat->max_tokens = strtoll(limit, NULL, 10);
    const char *usage = values[STREAM_OPTIONS];
    if (!read_flag(values[STREAM], &chat->is_streamed))
        return "stream: must be true or false";
    if (*usage == '{')
        find(usage, 1, (const char *const[]){"include_usage"}, &usage);
    if (!read_flag(usage, &chat->has_usage))
        return "include_usage: must be true or false";
    return NULL;
}
