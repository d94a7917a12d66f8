/* The command line, and the values that a request's `reference` object may give anew. */
#include "reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DURATION_LIMIT_S 86400.0

const char FAULT_CHOICES[] =
    "reset@K, stall@K, truncate@K, end@K, error@K, garbage@K, exit@K, http@STATUS, no_done, "
    "no_generation, ignore_term";

static const char *const FAULT_NAMES[] = {
    [RESET] = "reset",
    [STALL] = "stall",
    [TRUNCATE] = "truncate",
    [END_EARLY] = "end",
    [ERROR_EVENT] = "error",
    [GARBAGE] = "garbage",
    [EXIT] = "exit",
    [HTTP_STATUS] = "http",
    [NO_DONE] = "no_done",
    [NO_GENERATION] = "no_generation",
    [IGNORE_TERM] = "ignore_term",
};

typedef enum { WORDS, NUMBER, COUNT, SECONDS, FLAG, FAULT } Kind;

typedef struct {
    const char *name;
    Kind kind;
    size_t offset;
    const char *help;
} Argument;

#define FIELD(field) offsetof(Options, field)

static const Argument ARGUMENTS[] = {
    {"model", WORDS, FIELD(model), "name in /v1/models"},
    {"port", NUMBER, FIELD(port), "on 127.0.0.1; 0: any free one"},
    {"sends", WORDS, FIELD(sends), "record send times in DIR/sends.bin"},
    {"context_length", COUNT, FIELD(context_length), "prompt and output, tokens"},
    {"ttft_s", SECONDS, FIELD(ttft_s), "from the start in a slot to chunk 0"},
    {"itl_s", SECONDS, FIELD(itl_s), "between chunks, on an absolute schedule"},
    {"output_tokens", COUNT, FIELD(output_tokens), "of each answer, at most max_tokens"},
    {"slots", COUNT, FIELD(slots), "generations at once; others wait"},
    {"start_delay_s", SECONDS, FIELD(start_delay_s), "before it listens"},
    {"fault", FAULT, FIELD(fault), FAULT_CHOICES},
    {"label", WORDS, FIELD(label), "shown in /info"},
    {"tokens_per_chunk", COUNT, FIELD(tokens_per_chunk), "of each chunk but the last"},
    {"prefill_per_token_s", SECONDS, FIELD(prefill_per_token_s), "added to the TTFT"},
    {"memory_bytes", NUMBER, FIELD(memory_bytes), "hold that much memory"},
    {"role_chunk", FLAG, FIELD(role_chunk), "begin with a role-only chunk at once"},
};
#define ARGUMENT_COUNT (sizeof ARGUMENTS / sizeof *ARGUMENTS)

/* Digits at the beginning of a text, at most `most` of them; past them, or NULL where there are none. */
static const char *read_digits(const char *at, const char *end, int most, int64_t *number) {
    const char *first = at;
    for (*number = 0; at < end && *at >= '0' && *at <= '9' && at - first < most; at++)
        *number = *number * 10 + (*at - '0');
    return at > first ? at : NULL;
}

static bool is_valid(const Fault *fault, bool has_number) {
    bool needs_number = fault->kind >= RESET && fault->kind <= HTTP_STATUS;
    bool is_status = fault->kind != HTTP_STATUS || (fault->at >= 400 && fault->at <= 599);
    return fault->kind != NO_FAULT && needs_number == has_number && is_status && fault->every >= 1;
}

/* NAME[@K][/N]; false where there is no such fault. */
bool read_fault(Text text, Fault *fault) {
    const char *at = text.at, *end = text.at + text.length;
    while (at < end && (*at == '_' || (*at >= 'a' && *at <= 'z')))
        at++;
    Text name = {text.at, (size_t)(at - text.at)};
    *fault = (Fault){.every = 1};
    for (FaultKind kind = RESET; kind <= IGNORE_TERM; kind++)
        if (text_is(name, FAULT_NAMES[kind]))
            fault->kind = kind;
    bool has_number = at < end && *at == '@';
    if (has_number)
        at = read_digits(at + 1, end, 9, &fault->at);
    if (at && at < end && *at == '/')
        at = at + 1 < end && at[1] != '0' ? read_digits(at + 1, end, 9, &fault->every) : NULL;
    return at == end && is_valid(fault, has_number);
}

static bool read_double(Text text, double *number) {
    char copy[64], *end;
    if (!text.length || text.length >= sizeof copy)
        return false;
    memcpy(copy, text.at, text.length);
    copy[text.length] = 0;
    *number = strtod(copy, &end);
    return *end == 0 && end > copy;
}

bool read_seconds(Text text, double *seconds) {
    return read_double(text, seconds) && *seconds >= 0 && *seconds <= DURATION_LIMIT_S;
}

bool read_count(Text text, int64_t *count) {
    double number;
    if (!read_double(text, &number) || number < 1 || number > 9e15 || number != (double)(int64_t)number)
        return false;
    *count = (int64_t)number;
    return true;
}

static bool read_number(Text text, int64_t *number) {
    const char *end = text.at + text.length;
    return read_digits(text.at, end, 18, number) == end;
}

static bool read_value(const Argument *argument, const char *word, Options *options) {
    void *field = (char *)options + argument->offset;
    Text text = {word, strlen(word)};
    switch (argument->kind) {
    case WORDS:
        *(const char **)field = word;
        return true;
    case NUMBER:
        return read_number(text, field);
    case COUNT:
        return read_count(text, field);
    case SECONDS:
        return read_seconds(text, field);
    case FAULT:
        if (!read_fault(text, field))
            die("fault=%s: no such fault; choose from %s, each with /N or not", word, FAULT_CHOICES);
        return true;
    case FLAG:
        break;
    }
    *(bool *)field = true;
    return true;
}

static _Noreturn void misused(const char *problem, const char *word) {
    fprintf(stderr, "reference_server: %s: %s; --help shows all\n", word, problem);
    exit(2);
}

static _Noreturn void print_help(void) {
    puts("usage: program [options]\n");
    for (size_t k = 0; k < ARGUMENT_COUNT; k++) {
        char name[32];
        snprintf(name, sizeof name, "%s", ARGUMENTS[k].name);
        for (char *c = name; *c; c++)
            *c = *c == '_' ? '-' : *c;
        printf("  --%-22s %s\n", name, ARGUMENTS[k].help);
    }
    exit(0);
}

static const Argument *argument_of(Text name) {
    for (size_t k = 0; k < ARGUMENT_COUNT; k++) {
        const char *known = ARGUMENTS[k].name;
        size_t c = 0;
        while (c < name.length && known[c] && name.at[c] == (known[c] == '_' ? '-' : known[c]))
            c++;
        if (c == name.length && !known[c])
            return &ARGUMENTS[k];
    }
    return NULL;
}

/* Ends the process where a word is wrong. */
Options read_arguments(int count, char **words) {
    Options options = {
        .model = "reference",
        .label = "",
        .context_length = 131072,
        .ttft_s = 0.05,
        .itl_s = 0.01,
        .slots = 64,
        .tokens_per_chunk = 1,
    };
    for (int k = 1; k < count; k++) {
        char *word = words[k], *equals = strchr(word, '=');
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
            print_help();
        Text name = {word + 2, (equals ? (size_t)(equals - word) : strlen(word)) - 2};
        const Argument *argument = strncmp(word, "--", 2) == 0 ? argument_of(name) : NULL;
        if (!argument || (argument->kind == FLAG && equals))
            misused("no such option", word);
        char *value = equals ? equals + 1 : argument->kind == FLAG ? word : words[++k];
        if (!value)
            misused("needs a value", word);
        if (!read_value(argument, value, &options))
            misused("not a value that this option can have", equals ? word : value);
    }
    if (options.port > 65535)
        misused("must be up to 65535", "--port");
    return options;
}

static void add_words(Bytes *out, const char *words) {
    bytes_print(out, words ? "\"" : "null");
    if (words) {
        json_add_escaped(out, (Text){words, strlen(words)});
        bytes_print(out, "\"");
    }
}

/* With as few digits as give it back. */
static void add_double(Bytes *out, double number) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.15g", number);
    bytes_print(out, strtod(digits, NULL) == number ? "%.15g" : "%.17g", number);
}

static void add_option(Bytes *out, const Argument *argument, const Options *options) {
    const void *field = (const char *)options + argument->offset;
    const Fault *fault = &options->fault;
    switch (argument->kind) {
    case WORDS:
        add_words(out, *(const char *const *)field);
        return;
    case SECONDS:
        add_double(out, *(const double *)field);
        return;
    case FLAG:
        bytes_print(out, *(const bool *)field ? "true" : "false");
        return;
    case FAULT:
        if (!fault->kind)
            bytes_print(out, "null");
        else
            bytes_print(out, "{\"kind\": \"%s\", \"at\": %lld, \"every\": %lld}", FAULT_NAMES[fault->kind],
                        (long long)fault->at, (long long)fault->every);
        return;
    case NUMBER:
    case COUNT:
        break;
    }
    int64_t number = *(const int64_t *)field;
    if (argument->kind == COUNT && !number)
        bytes_print(out, "null");
    else
        bytes_print(out, "%lld", (long long)number);
}

/* The page /info. */
void add_options(Bytes *out, const Options *options) {
    bytes_print(out, "{\"program\": \"native\"");
    for (size_t k = 0; k < ARGUMENT_COUNT; k++) {
        bytes_print(out, ", \"%s\": ", ARGUMENTS[k].name);
        add_option(out, &ARGUMENTS[k], options);
    }
    bytes_print(out, "}");
}
