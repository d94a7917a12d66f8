/* One generation: read from a request, and written as the events of its answer. */
#include "reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_MAX_TOKENS 16
#define SIZE_ROOM 10 /* eight hexadecimal digits and a line's end */
#define WORD_BYTES 8 /* the longest word with its blank */
#define EVENT_END "\"}}]}\n\n\r\n"

static const char WORDS[16][WORD_BYTES + 1] = {
    "amber ",  "birch ",  "cedar ",   "delta ",  "ember ", "fjord ",  "grove ",  "harbor ",
    "island ", "kernel ", "lantern ", "meadow ", "north ", "orchid ", "pebble ", "river ",
};
static const char *const OVERRIDES[] = {"ttft_s", "itl_s", "output_tokens", "fault"};

enum { REFERENCE, MESSAGES, MAX_COMPLETION_TOKENS, MAX_TOKENS, MODEL, STREAM, STREAM_OPTIONS, FIELDS };
static const char *const FIELD_NAMES[FIELDS] = {
    "reference", "messages", "max_completion_tokens", "max_tokens", "model", "stream", "stream_options",
};

/* --- reading ----------------------------------------------------------------------------------- */

/* A number as it stands, or the text of a string. */
static Text scalar(Text value, Bytes *decoded) {
    decoded->length = 0;
    if (json_is(value, '"'))
        json_decode(value, decoded);
    else if (!json_is_null(value) && !strchr("[{tf", *value.at))
        bytes_add(decoded, value.at, value.length);
    return bytes_text(decoded);
}

static bool override_fault(Job *job, Text value, Text decoded, Refusal *refusal) {
    if (json_is_null(value))
        job->fault = (Fault){0};
    else if (!json_is(value, '"') || !read_fault(decoded, &job->fault))
        refuse(refusal, 400,
               "reference.fault: fault=%.*s: no such fault; choose from %s, each with /N or not",
               AS_PRINTED(decoded), FAULT_CHOICES);
    else if (job->fault.kind == IGNORE_TERM)
        refuse(refusal, 400, "reference.fault=ignore_term: a fault of the process, not of one request");
    return !refusal->status;
}

static bool override(Job *job, int64_t *output_tokens, Text reference, Refusal *refusal) {
    Text values[4];
    bool has_others = false;
    if (json_is_null(reference))
        return true;
    if (json_is(reference, '{'))
        json_members(reference, 4, OVERRIDES, values, &has_others);
    if (!json_is(reference, '{') || has_others) {
        refuse(refusal, 400, "reference: must be an object with some of ttft_s, itl_s, output_tokens, fault");
        return false;
    }
    Bytes decoded = {0};
    if (values[0].at && !read_seconds(scalar(values[0], &decoded), &job->ttft_s))
        refuse(refusal, 400, "reference.ttft_s: %.*s: must be from 0 to 86400 seconds",
               AS_PRINTED(values[0]));
    else if (values[1].at && !read_seconds(scalar(values[1], &decoded), &job->itl_s))
        refuse(refusal, 400, "reference.itl_s: %.*s: must be from 0 to 86400 seconds", AS_PRINTED(values[1]));
    else if (values[2].at && !read_count(scalar(values[2], &decoded), output_tokens))
        refuse(refusal, 400, "reference.output_tokens: %.*s: must be a whole number from 1",
               AS_PRINTED(values[2]));
    else if (values[3].at)
        override_fault(job, values[3], scalar(values[3], &decoded), refusal);
    bytes_free(&decoded);
    return !refusal->status;
}

/* The bytes of a message's text, or -1 where it has none or lacks its role. */
static int64_t text_bytes(Text message) {
    static const char *const names[] = {"role", "content"}, *const part_names[] = {"text"};
    Text found[2], part, text;
    bool has_others;
    if (!json_is(message, '{'))
        return -1;
    json_members(message, 2, names, found, &has_others);
    if (!json_is(found[0], '"'))
        return -1;
    if (!json_is(found[1], '['))
        return json_is(found[1], '"') ? (int64_t)json_text_bytes(found[1]) : json_is_false(found[1]) ? 0 : -1;
    int64_t bytes = 0;
    Text rest = {found[1].at + 1, found[1].length - 1};
    while (json_next(&rest, &part)) {
        if (!json_is(part, '{'))
            return -1;
        json_members(part, 1, part_names, &text, &has_others);
        if (!json_is(text, '"'))
            return -1;
        bytes += (int64_t)json_text_bytes(text);
    }
    return bytes;
}

/* A token is 4 bytes of a message's text, rounded up message by message. */
static bool count_prompt(Job *job, Text messages, Refusal *refusal) {
    Text rest = {messages.at + 1, messages.length - 1}, message;
    if (!json_is(messages, '[') || json_is_false(messages)) {
        refuse(refusal, 400, "messages: must be a list with one message at least");
        return false;
    }
    while (json_next(&rest, &message)) {
        int64_t bytes = text_bytes(message);
        if (bytes < 0) {
            refuse(refusal, 400, "messages: each needs a role, and text as its content");
            return false;
        }
        job->prompt_tokens += (bytes + 3) / 4;
    }
    return true;
}

static bool read_limit(const Text fields[FIELDS], int64_t *limit, Refusal *refusal) {
    bool is_new = !json_is_null(fields[MAX_COMPLETION_TOKENS]);
    Text value = fields[is_new ? MAX_COMPLETION_TOKENS : MAX_TOKENS];
    if (json_is_null(value))
        return true;
    bool is_whole = *value.at >= '1' && *value.at <= '9';
    for (size_t k = 0; k < value.length; k++)
        is_whole = is_whole && value.at[k] >= '0' && value.at[k] <= '9';
    if (!is_whole)
        refuse(refusal, 400, "%s: must be a whole number from 1",
               FIELD_NAMES[is_new ? MAX_COMPLETION_TOKENS : MAX_TOKENS]);
    else
        *limit = value.length > 15 ? (int64_t)1e15 : strtoll(value.at, NULL, 10);
    return is_whole;
}

static bool read_flag(Text value, const char *name, bool *flag, Refusal *refusal) {
    *flag = json_is(value, 't');
    if (!*flag && !json_is_false(value))
        refuse(refusal, 400, "%s: must be true or false", name);
    return !refusal->status;
}

static bool read_usage_flag(Text stream_options, bool *flag, Refusal *refusal) {
    static const char *const names[] = {"include_usage"};
    Text value = stream_options;
    bool has_others;
    if (json_is_false(stream_options))
        value = (Text){0};
    else if (json_is(stream_options, '{'))
        json_members(stream_options, 1, names, &value, &has_others);
    else
        value = TEXT("1");
    return read_flag(value, names[0], flag, refusal);
}

static uint64_t hash(Text text) {
    uint64_t state = 0xcbf29ce484222325ull; /* FNV-1a, 64 bits */
    for (size_t k = 0; k < text.length; k++)
        state = (state ^ (unsigned char)text.at[k]) * 0x100000001b3ull;
    return state;
}

static void begin_event(Job *job, Text model, const Options *options) {
    Bytes *event = &job->event;
    bytes_add(event, "          data: ", SIZE_ROOM + 6);
    bytes_print(event, "{\"id\":\"chatcmpl-");
    json_add_latin1(event, bytes_text(&job->id));
    bytes_print(event, "\",\"object\":\"chat.completion.chunk\",\"created\":%lld,\"model\":\"",
                (long long)time(NULL));
    if (json_is(model, '"') && model.length > 2)
        bytes_add(event, model.at + 1, model.length - 2);
    else if (json_is_false(model))
        json_add_escaped(event, (Text){options->model, strlen(options->model)});
    else
        json_add_escaped(event, model);
    bytes_print(event, "\",\"choices\":[");
    job->envelope_end = event->length;
    bytes_print(event, "{\"index\":0,\"finish_reason\":null,\"delta\":{\"content\":\"");
    job->prefix_end = event->length;
    bytes_room(event, (size_t)job->tokens_per_chunk * WORD_BYTES + sizeof EVENT_END);
}

static bool fits(Job *job, const Options *options, int64_t limit, Refusal *refusal) {
    if (job->prompt_tokens + limit <= options->context_length)
        return true;
    refuse(refusal, 400, "%lld + %lld tokens exceed the context length of %lld",
           (long long)job->prompt_tokens, (long long)limit, (long long)options->context_length);
    refusal->code = "context_length_exceeded";
    return false;
}

static bool read_fields(Job *job, const Options *options, const Text fields[FIELDS], Refusal *refusal) {
    int64_t wanted = options->output_tokens;
    job->ttft_s = options->ttft_s;
    job->itl_s = options->itl_s;
    job->fault = options->fault;
    if (!override(job, &wanted, fields[REFERENCE], refusal) || !count_prompt(job, fields[MESSAGES], refusal))
        return false;
    int64_t limit = wanted ? wanted : DEFAULT_MAX_TOKENS;
    if (!read_limit(fields, &limit, refusal) || !fits(job, options, limit, refusal) ||
        !read_flag(fields[STREAM], "stream", &job->is_streamed, refusal) ||
        !read_usage_flag(fields[STREAM_OPTIONS], &job->has_usage, refusal))
        return false;
    bool is_short = wanted && wanted < limit;
    job->output_tokens = is_short ? wanted : limit;
    job->finish_reason = is_short ? "stop" : "length";
    return true;
}

/* False, with the reason in `refusal`, where the request cannot be served. Frees nothing either way. */
bool read_job(Job *job, const Options *options, const Request *request, int64_t generation,
              Refusal *refusal) {
    Text fields[FIELDS];
    bool has_others;
    const char *problem = json_problem(request->body);
    *job = (Job){0};
    if (problem || !json_is(json_root(request->body), '{')) {
        refuse(refusal, 400, problem ? "the body is not JSON: %s" : "the body is not a JSON object", problem);
        return false;
    }
    json_members(json_root(request->body), FIELDS, FIELD_NAMES, fields, &has_others);
    if (!read_fields(job, options, fields, refusal))
        return false;
    if (generation % (job->fault.kind ? job->fault.every : 1) != 0)
        job->fault = (Fault){0};
    int64_t per_chunk = options->tokens_per_chunk;
    job->tokens_per_chunk = per_chunk < job->output_tokens ? per_chunk : job->output_tokens;
    job->chunks = (job->output_tokens + job->tokens_per_chunk - 1) / job->tokens_per_chunk;
    job->random = hash(fields[MESSAGES]);
    bytes_add(&job->id, request->request_id.at, request->request_id.length);
    if (!job->id.length)
        bytes_print(&job->id, "reference-%lld", (long long)generation);
    begin_event(job, fields[MODEL], options);
    return true;
}

void free_job(Job *job) {
    bytes_free(&job->id);
    bytes_free(&job->event);
}

/* --- writing ----------------------------------------------------------------------------------- */

/* Absolute, so that a late chunk does not delay those after it. */
int64_t due_ns(const Job *job, const Options *options, int64_t start_ns, int64_t chunk) {
    double ttft_s = job->ttft_s + options->prefill_per_token_s * (double)job->prompt_tokens;
    return start_ns + (int64_t)((ttft_s + (double)chunk * job->itl_s) * (double)NS_PER_S);
}

int64_t tokens_of(const Job *job, int64_t chunk) {
    int64_t left = job->output_tokens - chunk * job->tokens_per_chunk;
    return left < job->tokens_per_chunk ? left : job->tokens_per_chunk;
}

/* Adds words drawn at random, from the messages alone; a token is a word. (splitmix64, by S. Vigna) */
static void add_words(Bytes *out, Job *job, int64_t tokens) {
    for (; tokens > 0; tokens--) {
        uint64_t mixed = (job->random += 0x9e3779b97f4a7c15ull);
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
        const char *word = WORDS[(mixed ^ (mixed >> 27)) >> 60];
        bytes_add(out, word, strlen(word));
    }
}

/* Writes the size of what follows as the chunked transfer encoding wants it, just before `first`. */
static size_t put_size(Bytes *out, size_t first, size_t size) {
    char *at = out->at + first;
    *--at = '\n';
    *--at = '\r';
    do
        *--at = "0123456789abcdef"[size & 15];
    while (size >>= 4);
    return (size_t)(at - out->at);
}

/* The next chunk's event, framed; it stays as it is until the next call. To be asked for in order. */
Text content_event(Job *job, int64_t chunk) {
    Bytes *event = &job->event;
    event->length = job->prefix_end;
    add_words(event, job, tokens_of(job, chunk));
    bytes_add(event, EVENT_END, sizeof EVENT_END - 1);
    size_t first = put_size(event, SIZE_ROOM, event->length - 2 - SIZE_ROOM);
    return (Text){event->at + first, event->length - first};
}

/* Adds one server-sent event as one chunk of the chunked transfer encoding. */
void add_event(Bytes *out, Text data) {
    bytes_print(out, "%zx\r\ndata: ", data.length + 8);
    bytes_add(out, data.at, data.length);
    bytes_print(out, "\n\n\r\n");
}

static void add_enveloped(Bytes *out, const Job *job, const char *rest) {
    size_t envelope = job->envelope_end - SIZE_ROOM - 6;
    bytes_print(out, "%zx\r\ndata: ", envelope + strlen(rest) + 8);
    bytes_add(out, job->event.at + SIZE_ROOM + 6, envelope);
    bytes_print(out, "%s\n\n\r\n", rest);
}

static void print_usage(char room[256], const Job *job) {
    snprintf(room, 256,
             "],\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
             "\"prompt_tokens_details\":{\"cached_tokens\":0}}}",
             (long long)job->prompt_tokens, (long long)job->output_tokens,
             (long long)(job->prompt_tokens + job->output_tokens));
}

void add_role_event(Bytes *out, const Job *job) {
    add_enveloped(
        out, job,
        "{\"index\":0,\"finish_reason\":null,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}");
}

void add_finish_event(Bytes *out, const Job *job) {
    char rest[80];
    snprintf(rest, sizeof rest, "{\"index\":0,\"finish_reason\":\"%s\",\"delta\":{}}]}", job->finish_reason);
    add_enveloped(out, job, rest);
}

void add_usage_event(Bytes *out, const Job *job) {
    char rest[256];
    print_usage(rest, job);
    add_enveloped(out, job, rest);
}

/* The whole answer of a request that is not streamed; draws the words of all chunks. */
void add_answer_json(Bytes *out, Job *job) {
    static const char from[] = "\"object\":\"chat.completion.chunk\"",
                      into[] = "\"object\":\"chat.completion\"";
    const char *envelope = job->event.at + SIZE_ROOM + 6, *end = job->event.at + job->envelope_end;
    /* The id before it cannot hold this: its quotes are escaped. */
    const char *kind = memmem(envelope, (size_t)(end - envelope), from, sizeof from - 1);
    bytes_add(out, envelope, (size_t)(kind - envelope));
    bytes_print(out, "%s", into);
    bytes_add(out, kind + sizeof from - 1, (size_t)(end - kind) - (sizeof from - 1));
    bytes_print(out,
                "{\"index\":0,\"finish_reason\":\"%s\",\"message\":{\"role\":\"assistant\",\"content\":\"",
                job->finish_reason);
    add_words(out, job, job->output_tokens);
    char rest[256];
    print_usage(rest, job);
    bytes_print(out, "\"}}%s", rest);
}
