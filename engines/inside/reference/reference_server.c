/* The native reference server: sends tokens at known instants, at rates that Python cannot keep.

   reference_server.py describes the pages, the options and sends.bin. It also has faults and a role chunk,
   which this server lacks. One thread: between two waits it sends what is due and reads what has come.
   Instants are nanoseconds on CLOCK_MONOTONIC. */
#include "reference_request.h"

#include <endian.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define DEFAULT_MAX_TOKENS 16
#define JSON "application/json"
#define EVENTS_PER_WAIT 256
#define SENDS_PER_TURN 32 /* then it looks for requests */
#define WAKE_GAP_NS 20000 /* a wake-up costs more than a send: one serves what is due within this time */

/* --- basics ------------------------------------------------------------------------------------- */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static struct timespec timespec_of(int64_t ns) {
    return ns > 0 ? (struct timespec){ns / NS_PER_S, ns % NS_PER_S} : (struct timespec){0};
}

/* A growing buffer. There is always room for a zero after its content. */
typedef struct {
    char *at;
    size_t length, capacity;
} Bytes;

static void add(Bytes *bytes, const void *content, size_t length) {
    if (bytes->capacity <= bytes->length + length) {
        bytes->capacity = bytes->capacity * 2 + length + 1;
        bytes->at = realloc(bytes->at, bytes->capacity);
        if (!bytes->at)
            err(1, "%zu bytes", bytes->capacity);
    }
    memcpy(bytes->at + bytes->length, content, length);
    bytes->length += length;
}

__attribute__((format(printf, 2, 3))) static void print(Bytes *bytes, const char *format, ...) {
    char *text;
    va_list values;
    va_start(values, format);
    int length = vasprintf(&text, format, values);
    va_end(values);
    if (length < 0)
        err(1, "a text");
    add(bytes, text, (size_t)length);
    free(text);
}

static void drop(Bytes *bytes, size_t length) {
    bytes->length -= length;
    memmove(bytes->at, bytes->at + length, bytes->length);
}

/* Returns an empty buffer, the same each time, for what is written at once. */
static Bytes *scratch(void) {
    static Bytes bytes;
    bytes.length = 0;
    return &bytes;
}

/* --- options ------------------------------------------------------------------------------------ */

static struct {
    const char *model, *label, *sends;
    int64_t port, context_length, output_tokens, slots, tokens_per_chunk, memory_bytes;
    double ttft_s, itl_s, start_delay_s, prefill_per_token_s;
} options;

static struct Option {
    const char *name;
    enum { WORDS, NUMBER, COUNT, SECONDS } kind; /* a NUMBER is from 0, a COUNT from 1 */
    void *value;
    const char *word; /* as it is given, else this */
} OPTIONS[] = {
    {"model", WORDS, &options.model, "reference"},
    {"port", NUMBER, &options.port, "0"},
    {"sends", WORDS, &options.sends, ""},
    {"context-length", COUNT, &options.context_length, "131072"},
    {"ttft-s", SECONDS, &options.ttft_s, "0.05"},
    {"itl-s", SECONDS, &options.itl_s, "0.01"},
    {"output-tokens", COUNT, &options.output_tokens, "null"},
    {"slots", COUNT, &options.slots, "64"},
    {"start-delay-s", SECONDS, &options.start_delay_s, "0"},
    {"label", WORDS, &options.label, ""},
    {"tokens-per-chunk", COUNT, &options.tokens_per_chunk, "1"},
    {"prefill-per-token-s", SECONDS, &options.prefill_per_token_s, "0"},
    {"memory-bytes", NUMBER, &options.memory_bytes, "0"},
};
#define OPTION_COUNT (int)(sizeof OPTIONS / sizeof *OPTIONS)

static bool read_option(const struct Option *option) {
    char *end;
    if (option->kind == WORDS) {
        *(const char **)option->value = option->word;
        return !strpbrk(option->word, "\"\\\n"); /* they go into JSON as they are */
    }
    if (option->kind == SECONDS) {
        double seconds = *(double *)option->value = strtod(option->word, &end);
        return *option->word && !*end && seconds >= 0 && seconds <= 86400;
    }
    int64_t number = *(int64_t *)option->value = strtoll(option->word, &end, 10);
    return *option->word && !*end && number >= (option->kind == COUNT);
}

static void read_arguments(int count, char **words) {
    struct option known[OPTION_COUNT + 1] = {0};
    for (int k = 0; k < OPTION_COUNT; k++) {
        known[k] = (struct option){OPTIONS[k].name, required_argument, NULL, k};
        read_option(&OPTIONS[k]);
    }
    for (int k; (k = getopt_long(count, words, "", known, NULL)) >= 0;) {
        if (k >= OPTION_COUNT) /* getopt_long has said why */
            exit(2);
        OPTIONS[k].word = optarg;
        if (!read_option(&OPTIONS[k]))
            errx(2, "--%s=%s: not a value that it can have", OPTIONS[k].name, optarg);
    }
    if (optind < count)
        errx(2, "%s: not an option", words[optind]);
}

static void print_options(Bytes *bytes) {
    print(bytes, "{\"program\": \"native\"");
    for (int k = 0; k < OPTION_COUNT; k++) {
        print(bytes, ", \"");
        for (const char *c = OPTIONS[k].name; *c; c++)
            add(bytes, *c == '-' ? "_" : c, 1);
        print(bytes, OPTIONS[k].kind == WORDS ? "\": \"%s\"" : "\": %s", OPTIONS[k].word);
    }
    print(bytes, "}");
}

/* --- connections, and lists of those that wait ----------------------------------------------------- */

typedef struct Connection Connection;

/* In the order of `at_ns`. */
typedef struct {
    Connection *first, *last;
    int64_t count;
} List;

struct Connection {
    int file;
    enum {
        READING,   /* between two requests, or in the middle of one */
        WAITING,   /* its request waits for a slot */
        ANSWERING, /* in a slot */
        CLOSED,
    } phase;
    Bytes in, out; /* `out` is kept for a client that does not read */
    bool is_last;  /* no other request is answered */

    List *list; /* that it is in */
    Connection *before, *after;
    int64_t at_ns; /* waits since then for a slot, or until then for its next chunk */

    /* The answer. */
    char id[ID_BYTES + 1];
    Chat chat;
    int64_t start_ns, output_tokens;
    uint32_t chunk; /* the next one's number */
    const char *finish_reason;
    Bytes envelope; /* what its events begin with */
};

static struct {
    int poll, listener, signals;
    List waiting;   /* for a slot */
    List beginning; /* for their first chunk */
    List streaming; /* for a later one */
    List closed;
    int64_t generations, running, prompt_tokens, output_tokens;
} server;

/* Looks for the place from the end. Chunks become due in the order of those before them, so it is there. */
static void list_put(List *list, Connection *connection, int64_t at_ns) {
    Connection *before = list->last;
    while (before && before->at_ns > at_ns)
        before = before->before;
    connection->list = list;
    connection->before = before;
    connection->after = before ? before->after : list->first;
    connection->at_ns = at_ns;
    *(before ? &before->after : &list->first) = connection;
    *(connection->after ? &connection->after->before : &list->last) = connection;
    list->count++;
}

static void list_remove(Connection *connection) {
    List *list = connection->list;
    if (!list)
        return;
    *(connection->before ? &connection->before->after : &list->first) = connection->after;
    *(connection->after ? &connection->after->before : &list->last) = connection->before;
    connection->list = NULL;
    list->count--;
}

/* Returns whose chunk is due next, or NULL. */
static Connection *next_due(void) {
    Connection *begins = server.beginning.first, *streams = server.streaming.first;
    return !begins || (streams && streams->at_ns <= begins->at_ns) ? streams : begins;
}

/* --- sends.bin ------------------------------------------------------------------------------------ */

#define ARRIVAL 0xFFFFFFFF
#define END 0xFFFFFFFE
#define BLOCK_BYTES (16 * 1024) /* written in about 10 us: no chunk is much later for it */
#define FLUSH_PERIOD_NS (NS_PER_S / 2)

static FILE *record; /* NULL: nothing is recorded */

typedef struct {
    char id[ID_BYTES];
    uint32_t chunk;
    uint64_t due_ns, sent_ns;
} Send;
_Static_assert(sizeof(Send) == 56, "a Send has no padding");

/* Appends to what an earlier server wrote. */
static void open_record(void) {
    static const char header[16] = "RFSENDS\n\2\0\0\0\x38"; /* version 2; a record has 56 bytes */
    char path[4096];
    snprintf(path, sizeof path, "%s/sends.bin", options.sends);
    record = fopen(path, "a+be");
    if (!record || setvbuf(record, NULL, _IOFBF, BLOCK_BYTES) != 0)
        err(1, "%s", path);
    char begun[sizeof header];
    size_t length = fread(begun, 1, sizeof begun, record);
    if (length > 0 && (length < sizeof header || memcmp(begun, header, sizeof header) != 0))
        errx(1, "%s: not a record of version 2; move it away", path);
    fseek(record, 0, SEEK_END);
    if (length == 0)
        fwrite(header, sizeof header, 1, record);
}

static void record_send(const Connection *connection, uint32_t chunk, int64_t due_ns, int64_t sent_ns) {
    Send send = {{0}, htole32(chunk), htole64((uint64_t)due_ns), htole64((uint64_t)sent_ns)};
    memcpy(send.id, connection->id, ID_BYTES);
    if (record)
        fwrite_unlocked(&send, sizeof send, 1, record);
}

static void flush_record(void) {
    if (record && (fflush(record) != 0 || ferror(record)))
        err(1, "sends.bin");
}

/* --- reading and writing --------------------------------------------------------------------------- */

static void watch(int file, void *what) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = what};
    if (epoll_ctl(server.poll, EPOLL_CTL_ADD, file, &event) < 0)
        err(1, "epoll_ctl");
}

/* Accepts who waits. Where no file is left they go on waiting, until one is closed. */
static void accept_all(void) {
    for (int file, on = 1;
         (file = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            err(1, "a connection");
        connection->file = file;
        watch(file, connection);
    }
}

/* Frees the slot, or the place among those that wait for one. */
static void end_answer(Connection *connection) {
    list_remove(connection);
    server.running -= connection->phase == ANSWERING;
    connection->phase = READING;
}

/* Leaves the memory to free_closed(): callers and events still point to it. */
static void close_connection(Connection *connection) {
    end_answer(connection);
    close(connection->file);
    connection->phase = CLOSED;
    list_put(&server.closed, connection, 0);
}

static void free_closed(void) {
    for (Connection *connection; (connection = server.closed.first);) {
        list_remove(connection);
        free(connection->in.at);
        free(connection->out.at);
        free(connection->envelope.at);
        free(connection);
        accept_all(); /* it may have had the last file */
    }
}

/* Hands what is written to the kernel, as far as it takes it. Closes the connection if its client is gone. */
static void push(Connection *connection) {
    if (connection->phase == CLOSED || !connection->out.length)
        return;
    ssize_t sent = send(connection->file, connection->out.at, connection->out.length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        close_connection(connection);
    drop(&connection->out, sent < 0 ? 0 : (size_t)sent);
}

static void write_response(Connection *connection, const char *status, const char *type, const Bytes *body) {
    print(&connection->out, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type,
          body->length);
    add(&connection->out, body->at, body->length);
}

static void write_error(Connection *connection, const char *status, const char *message) {
    Bytes *body = scratch();
    print(body, "{\"error\": {\"message\": \"%s\", \"type\": \"invalid_request_error\", \"code\": %.3s}}",
          message, status);
    write_response(connection, status, JSON, body);
}

/* --- answers -------------------------------------------------------------------------------------- */

static const char WORD_LIST[16][9] = {
    "amber ",  "birch ",  "cedar ",   "delta ",  "ember ", "fjord ",  "grove ",  "harbor ",
    "island ", "kernel ", "lantern ", "meadow ", "north ", "orchid ", "pebble ", "river ",
};

/* Adds words drawn from the messages' seed; a token is a word. The generator is splitmix64, by S. Vigna. */
static void add_words(Bytes *bytes, Chat *chat, int64_t tokens) {
    for (; tokens > 0; tokens--) {
        uint64_t mixed = chat->seed += 0x9e3779b97f4a7c15;
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
        const char *word = WORD_LIST[(mixed ^ (mixed >> 27)) >> 60];
        add(bytes, word, strlen(word));
    }
}

static void print_usage(Bytes *bytes, const Connection *connection) {
    long long prompt_tokens = connection->chat.prompt_tokens, output_tokens = connection->output_tokens;
    print(bytes,
          "],\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
          "\"prompt_tokens_details\":{\"cached_tokens\":0}}}",
          prompt_tokens, output_tokens, prompt_tokens + output_tokens);
}

/* Writes a server-sent event, framed as a chunk of the chunked transfer encoding. */
static void write_event(Connection *connection, const Bytes *rest) {
    char head[32];
    size_t length = connection->envelope.length + rest->length;
    add(&connection->out, head, (size_t)snprintf(head, sizeof head, "%zx\r\ndata: ", length + 8));
    add(&connection->out, connection->envelope.at, connection->envelope.length);
    add(&connection->out, rest->at, rest->length);
    add(&connection->out, "\n\n\r\n", 4);
}

/* Sets when the next chunk is due, or the whole answer. A late chunk does not delay those after it. */
static void schedule(Connection *connection) {
    const Chat *chat = &connection->chat;
    int64_t last = (connection->output_tokens - 1) / options.tokens_per_chunk;
    double ttft_s = options.ttft_s + options.prefill_per_token_s * (double)chat->prompt_tokens;
    double due_s = ttft_s + (double)(chat->is_streamed ? connection->chunk : last) * options.itl_s;
    list_remove(connection);
    list_put(connection->chunk ? &server.streaming : &server.beginning, connection,
             connection->start_ns + (int64_t)(due_s * (double)NS_PER_S));
}

/* Begins an answer in a slot. */
static void begin(Connection *connection, int64_t start_ns) {
    bool is_streamed = connection->chat.is_streamed;
    server.running++;
    server.prompt_tokens += connection->chat.prompt_tokens;
    connection->phase = ANSWERING;
    connection->start_ns = start_ns;
    connection->chunk = 0;
    connection->envelope.length = 0;
    print(&connection->envelope,
          "{\"id\":\"chatcmpl-%s\",\"object\":\"chat.completion%s\",\"created\":%lld,\"model\":\"%s\","
          "\"choices\":[",
          connection->id, is_streamed ? ".chunk" : "", (long long)time(NULL), options.model);
    schedule(connection);
    if (is_streamed) {
        print(&connection->out,
              "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
              "X-Request-Id: %s\r\n\r\n",
              connection->id);
        push(connection);
    }
}

/* Hands over the last bytes of an answer, and frees its slot. */
static void finish(Connection *connection) {
    int64_t sent_ns = now_ns();
    push(connection);
    if (connection->phase == CLOSED)
        return;
    record_send(connection, END, 0, sent_ns);
    end_answer(connection);
}

static void send_whole(Connection *connection) {
    Bytes *body = scratch();
    add(body, connection->envelope.at, connection->envelope.length);
    print(body, "{\"index\":0,\"finish_reason\":\"%s\",\"message\":{\"role\":\"assistant\",\"content\":\"",
          connection->finish_reason);
    add_words(body, &connection->chat, connection->output_tokens);
    print(body, "\"}}");
    print_usage(body, connection);
    server.output_tokens += connection->output_tokens;
    write_response(connection, "200 OK", JSON, body);
    finish(connection);
}

static void send_end(Connection *connection) {
    Bytes *rest = scratch();
    print(rest, "{\"index\":0,\"finish_reason\":\"%s\",\"delta\":{}}]}", connection->finish_reason);
    write_event(connection, rest);
    if (connection->chat.has_usage) {
        print_usage(scratch(), connection);
        write_event(connection, rest);
    }
    print(&connection->out, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    finish(connection);
}

static void send_chunk(Connection *connection) {
    static const char head[] = "{\"index\":0,\"finish_reason\":null,\"delta\":{\"content\":\"";
    int64_t left = connection->output_tokens - connection->chunk * options.tokens_per_chunk;
    int64_t tokens = left < options.tokens_per_chunk ? left : options.tokens_per_chunk;
    Bytes *rest = scratch();
    add(rest, head, sizeof head - 1);
    add_words(rest, &connection->chat, tokens);
    add(rest, "\"}}]}", 5);
    write_event(connection, rest);
    int64_t sent_ns = now_ns();
    push(connection);
    if (connection->phase == CLOSED)
        return;
    record_send(connection, connection->chunk++, connection->at_ns, sent_ns);
    server.output_tokens += tokens;
    if (tokens < left)
        schedule(connection);
    else
        send_end(connection);
}

/* --- requests ------------------------------------------------------------------------------------- */

static void generate(Connection *connection, const Request *request, char *body) {
    Chat *chat = &connection->chat;
    int64_t arrived_ns = now_ns(), wanted = options.output_tokens;
    char *end = body + request->body_bytes, kept = *end;
    server.generations++;
    strncpy(connection->id, request->id, sizeof connection->id); /* pads with zeros, as the record does */
    if (!*connection->id)
        snprintf(connection->id, sizeof connection->id, "reference-%lld", (long long)server.generations);
    record_send(connection, ARRIVAL, 0, arrived_ns);
    *end = 0;
    const char *mistake = read_chat(body, request->body_bytes, chat);
    *end = kept;
    int64_t limit = chat->max_tokens ? chat->max_tokens : wanted ? wanted : DEFAULT_MAX_TOKENS;
    bool is_cut = wanted && wanted < limit;
    connection->output_tokens = is_cut ? wanted : limit;
    connection->finish_reason = is_cut ? "stop" : "length";
    if (!mistake && limit > options.context_length - chat->prompt_tokens)
        mistake = "the prompt and max_tokens exceed the context length";
    if (mistake) {
        write_error(connection, "400 Bad Request", mistake);
    } else if (server.running < options.slots && !server.waiting.count) {
        begin(connection, arrived_ns);
    } else {
        connection->phase = WAITING;
        list_put(&server.waiting, connection, arrived_ns);
    }
}

static void print_metric(Bytes *bytes, const char *name, const char *kind, int64_t value) {
    print(bytes, "# TYPE reference:%s %s\nreference:%s %lld\n", name, kind, name, (long long)value);
}

static void print_metrics(Bytes *bytes) {
    print_metric(bytes, "requests_running", "gauge", server.running);
    print_metric(bytes, "requests_waiting", "gauge", server.waiting.count);
    print_metric(bytes, "prompt_tokens_total", "counter", server.prompt_tokens);
    print_metric(bytes, "output_tokens_total", "counter", server.output_tokens);
}

static void answer(Connection *connection, const Request *request, char *body) {
    const char *path = request->path;
    bool is_chat = strcmp(path, "/v1/chat/completions") == 0, is_metrics = strcmp(path, "/metrics") == 0;
    Bytes *page = scratch();
    if (is_metrics)
        print_metrics(page);
    else if (strcmp(path, "/info") == 0)
        print_options(page);
    else if (strcmp(path, "/health") == 0)
        print(page, "{\"status\": \"ok\"}");
    if (!is_chat && !page->length)
        write_error(connection, "404 Not Found", "no such path");
    else if (is_chat)
        generate(connection, request, body);
    else
        write_response(connection, "200 OK", is_metrics ? "text/plain; version=0.0.4" : JSON, page);
}

/* Answers the requests that have come, one after the other, until one is incomplete or takes its time. */
static void answer_requests(Connection *connection) {
    Bytes *in = &connection->in;
    while (connection->phase == READING && !connection->out.length && !connection->is_last) {
        Request request;
        const char *mistake = read_request(in->at, in->length, &request);
        size_t length = request.head_bytes + request.body_bytes;
        if (!mistake && (!request.head_bytes || in->length < length))
            return;
        connection->is_last = mistake || request.is_last; /* nobody knows where a mistake ends */
        if (mistake)
            write_error(connection, "400 Bad Request", mistake);
        else
            answer(connection, &request, in->at + request.head_bytes);
        drop(in, mistake ? 0 : length);
        push(connection);
    }
    /* The client closes it then. A close() with bytes unread would reset it under the last answer. */
    if (connection->phase == READING && !connection->out.length)
        shutdown(connection->file, SHUT_WR);
}

/* The client reads again, has sent something, or is gone. */
static void attend(Connection *connection) {
    static char room[256 * 1024];
    push(connection);
    if (connection->phase == ANSWERING && !connection->out.length && !connection->list)
        list_put(&server.streaming, connection, connection->at_ns);
    answer_requests(connection);
    for (ssize_t length; connection->phase != CLOSED;) {
        if ((length = recv(connection->file, room, sizeof room, 0)) < 0 && errno == EAGAIN)
            return;
        if (length <= 0 || connection->in.length > HEAD_LIMIT_BYTES + BODY_LIMIT_BYTES) {
            close_connection(connection);
        } else {
            add(&connection->in, room, (size_t)length);
            answer_requests(connection);
        }
    }
}

/* --- the process ---------------------------------------------------------------------------------- */

/* Sends what is due, but only so much that requests are read however late the chunks are. */
static void send_due(void) {
    Connection *connection = next_due();
    for (int k = 0; k < SENDS_PER_TURN && connection && connection->at_ns <= now_ns(); k++) {
        if (connection->out.length)
            list_remove(connection); /* its client does not read; attend() puts it back */
        else if (connection->chat.is_streamed)
            send_chunk(connection);
        else
            send_whole(connection);
        answer_requests(connection);
        connection = next_due();
    }
}

/* Waits until something happens, a chunk is due, or this instant. Returns the number of events. */
static int wait_for(struct epoll_event *events, int64_t until_ns) {
    static int64_t woken_ns;
    if (next_due() && next_due()->at_ns < until_ns)
        until_ns = next_due()->at_ns;
    if (until_ns > now_ns()) { /* epoll_wait() counts whole milliseconds, ppoll() nanoseconds */
        int64_t wake_ns = until_ns > woken_ns + WAKE_GAP_NS ? until_ns : woken_ns + WAKE_GAP_NS;
        struct timespec left = timespec_of(wake_ns - now_ns());
        ppoll(&(struct pollfd){.fd = server.poll, .events = POLLIN}, 1, &left, NULL);
        woken_ns = now_ns();
    }
    return epoll_wait(server.poll, events, EVENTS_PER_WAIT, 0);
}

/* Returns after SIGTERM or SIGINT; streams that run are cut. */
static void serve(void) {
    struct epoll_event events[EVENTS_PER_WAIT];
    for (int64_t flush_ns = 0;;) {
        send_due();
        while (server.waiting.count && server.running < options.slots)
            begin(server.waiting.first, now_ns());
        free_closed();
        if (flush_ns <= now_ns()) {
            flush_record();
            flush_ns = now_ns() + FLUSH_PERIOD_NS;
        }
        for (int k = 0, count = wait_for(events, flush_ns); k < count; k++) {
            void *what = events[k].data.ptr;
            if (what == &server.signals)
                return;
            if (what == &server.listener)
                accept_all();
            else
                attend(what);
        }
    }
}

static void start_listening(void) {
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(server.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server.listener, (struct sockaddr *)&address, length) < 0 ||
        listen(server.listener, SOMAXCONN) < 0)
        err(1, "port %lld", (long long)options.port);
    getsockname(server.listener, (struct sockaddr *)&address, &length);
    printf("listening on http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

/* Takes files for many clients, exact timers, and the memory that it shall hold, every page of it. */
static void take_resources(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    prctl(PR_SET_TIMERSLACK, 1);
    size_t bytes = (size_t)options.memory_bytes;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    if (bytes && mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        errx(1, "no memory for %zu bytes", bytes);
}

int main(int count, char **words) {
    read_arguments(count, words);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    take_resources();
    if (*options.sends)
        open_record();
    server.signals = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    struct timespec delay = timespec_of((int64_t)(options.start_delay_s * (double)NS_PER_S));
    if (ppoll(&(struct pollfd){.fd = server.signals, .events = POLLIN}, 1, &delay, NULL) == 0) {
        server.poll = epoll_create1(EPOLL_CLOEXEC);
        start_listening();
        watch(server.signals, &server.signals);
        watch(server.listener, &server.listener);
        serve();
    }
    flush_record();
    return 0;
}
