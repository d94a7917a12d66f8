/* What a request gets: a page, an error, or a generation in a slot, chunk by chunk, with its faults. */
#include "reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHAT_PATH "/v1/chat/completions"
#define JSON "application/json"

static const Text LAST_CHUNK = {"0\r\n\r\n", 5};

/* Bytes of one write, built here; not for content chunks, whose buffer is the job's. */
static Bytes scratch;

static Bytes *cleared(void) {
    scratch.length = 0;
    return &scratch;
}

static void put_scratch(Server *server, Connection *connection) {
    connection_put(server, connection, bytes_text(&scratch));
}

/* --- pages and errors -------------------------------------------------------------------------- */

static void add_models(Bytes *body, const Server *server) {
    bytes_print(body, "{\"object\": \"list\", \"data\": [{\"id\": \"");
    json_add_escaped(body, (Text){server->options.model, strlen(server->options.model)});
    bytes_print(body, "\", \"object\": \"model\", \"created\": 0, \"owned_by\": \"reference\"}]}");
}

static void add_health(Bytes *body, const Server *server) {
    (void)server;
    bytes_print(body, "{\"status\": \"ok\"}");
}

static void add_info(Bytes *body, const Server *server) {
    add_options(body, &server->options);
}

static void add_metric(Bytes *body, const char *name, const char *kind, int64_t value) {
    bytes_print(body, "# TYPE reference:%s %s\nreference:%s %lld\n", name, kind, name, (long long)value);
}

static void add_metrics(Bytes *body, const Server *server) {
    add_metric(body, "requests_running", "gauge", server->running);
    add_metric(body, "requests_waiting", "gauge", server->waiting);
    add_metric(body, "requests_total", "counter", server->generations);
    add_metric(body, "prompt_tokens_total", "counter", server->prompt_tokens);
    add_metric(body, "output_tokens_total", "counter", server->output_tokens);
}

static const struct {
    const char *path;
    const char *content_type;
    void (*add)(Bytes *body, const Server *server);
} PAGES[] = {
    {"/v1/models", JSON, add_models},
    {"/health", JSON, add_health},
    {"/info", JSON, add_info},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", add_metrics},
};
#define PAGE_COUNT (sizeof PAGES / sizeof *PAGES)

/* Also frees the refusal's message. */
void answer_refused(Server *server, Connection *connection, Refusal *refusal) {
    Bytes body = {0};
    add_error_json(&body, refusal);
    add_whole(cleared(), refusal->status, JSON, bytes_text(&body), (Text){0});
    put_scratch(server, connection);
    bytes_free(&body);
    bytes_free(&refusal->message);
    connection_answered(server, connection);
}

static void answer_page(Server *server, Connection *connection, size_t page) {
    Bytes body = {0};
    PAGES[page].add(&body, server);
    add_whole(cleared(), 200, PAGES[page].content_type, bytes_text(&body), (Text){0});
    put_scratch(server, connection);
    bytes_free(&body);
    connection_answered(server, connection);
}

/* --- slots ------------------------------------------------------------------------------------- */

static void join_queue(Server *server, Connection *connection) {
    connection->before = server->last_waiting;
    connection->after = NULL;
    *(server->last_waiting ? &server->last_waiting->after : &server->first_waiting) = connection;
    server->last_waiting = connection;
    connection->phase = WAITING;
    server->waiting++;
}

static void leave_queue(Server *server, Connection *connection) {
    *(connection->before ? &connection->before->after : &server->first_waiting) = connection->after;
    *(connection->after ? &connection->after->before : &server->last_waiting) = connection->before;
    server->waiting--;
}

/* The answer is over, whole or not: its slot is free for the next turn's fill_slots(). */
void answer_dropped(Server *server, Connection *connection) {
    if (connection->phase == WAITING)
        leave_queue(server, connection);
    schedule_remove(&server->schedule, &connection->due);
    server->running -= connection->has_slot;
    connection->has_slot = connection->is_recorded = false;
    free_job(&connection->job);
}

/* --- generations ------------------------------------------------------------------------------- */

static void schedule_chunk(Server *server, Connection *connection) {
    const Job *job = &connection->job;
    int64_t chunk = job->is_streamed ? connection->chunk : job->chunks - 1;
    connection->phase = SCHEDULED;
    schedule_put(&server->schedule, &connection->due,
                 due_ns(job, &server->options, connection->start_ns, chunk));
}

static void begin_stream(Server *server, Connection *connection) {
    Text id = bytes_text(&connection->job.id);
    add_head(cleared(), 200, "text/event-stream", "Transfer-Encoding: chunked", id);
    put_scratch(server, connection);
    if (server->options.role_chunk) {
        add_role_event(cleared(), &connection->job);
        put_scratch(server, connection);
    }
}

static bool strike(Server *server, Connection *connection);

static void begin(Server *server, Connection *connection, int64_t start_ns) {
    server->running++;
    server->prompt_tokens += connection->job.prompt_tokens;
    connection->has_slot = true;
    connection->start_ns = start_ns;
    connection->chunk = 0;
    connection->event = (Text){0};
    if (connection->job.is_streamed)
        begin_stream(server, connection);
    bool is_over = connection->job.is_streamed && connection->phase != CLOSED && strike(server, connection);
    if (!is_over && connection->phase != CLOSED)
        schedule_chunk(server, connection);
}

/* Starts who waits, as slots are free. */
void fill_slots(Server *server) {
    while (server->first_waiting && server->running < server->options.slots) {
        Connection *connection = server->first_waiting;
        leave_queue(server, connection);
        connection->phase = SCHEDULED;
        begin(server, connection, now_ns());
        connection_continue(server, connection);
    }
}

/* Writes the end of an answer's body and records when; `content` is the last of it. */
static void put_end(Server *server, Connection *connection, Text content) {
    int64_t sent_ns = now_ns();
    connection_put(server, connection, content);
    if (connection->phase == CLOSED)
        return;
    bool is_recorded = connection->out.length != 0;
    if (!is_recorded)
        record_add(&server->record, connection->record_id, END, 0, sent_ns);
    answer_dropped(server, connection);
    connection->is_recorded = is_recorded;
    connection_answered(server, connection);
}

static void generate(Server *server, Connection *connection, const Request *request, int64_t arrived_ns) {
    Refusal refusal = {0};
    Job *job = &connection->job;
    server->generations++;
    bool is_served = read_job(job, &server->options, request, server->generations, &refusal);
    char unnamed[40];
    int length = snprintf(unnamed, sizeof unnamed, "reference-%lld", (long long)server->generations);
    record_id(connection->record_id,
              request->request_id.length ? request->request_id : (Text){unnamed, (size_t)length});
    record_add(&server->record, connection->record_id, ARRIVAL, 0, arrived_ns);
    if (is_served && (job->fault.kind == HTTP_STATUS || job->fault.kind == NO_GENERATION)) {
        is_served = false;
        refuse(&refusal, job->fault.kind == HTTP_STATUS ? (int)job->fault.at : 500, "fault %s",
               job->fault.kind == HTTP_STATUS ? "http" : "no_generation");
    }
    if (!is_served) {
        free_job(job);
        answer_refused(server, connection, &refusal);
    } else if (server->running < server->options.slots && !server->first_waiting) {
        connection->phase = SCHEDULED;
        begin(server, connection, arrived_ns);
    } else {
        join_queue(server, connection);
    }
}

/* The fault that follows the chunks that were sent, if it is its turn; true: the answer is over. */
static bool strike(Server *server, Connection *connection) {
    const Fault *fault = &connection->job.fault;
    if (fault->kind < RESET || fault->kind > EXIT || fault->at != connection->chunk)
        return false;
    switch (fault->kind) {
    case GARBAGE:
        add_event(cleared(), TEXT("{\"choices\": [this is not JSON"));
        put_scratch(server, connection);
        return false;
    case RESET:
        connection_reset(server, connection);
        break;
    case STALL:
        connection->phase = STALLED;
        break;
    case TRUNCATE:
        connection->is_last = true;
        answer_dropped(server, connection);
        connection_answered(server, connection);
        break;
    case END_EARLY:
        put_end(server, connection, LAST_CHUNK);
        break;
    case ERROR_EVENT:
        add_event(
            cleared(),
            TEXT("{\"error\": {\"message\": \"fault error\", \"type\": \"server_error\", \"code\": 500}}"));
        add_event(&scratch, TEXT("[DONE]"));
        bytes_add(&scratch, LAST_CHUNK.at, LAST_CHUNK.length);
        put_end(server, connection, bytes_text(&scratch));
        break;
    default: /* EXIT */
        record_flush(&server->record, SIZE_MAX);
        _exit(3);
    }
    return true;
}

static void finish(Server *server, Connection *connection) {
    const Job *job = &connection->job;
    add_finish_event(cleared(), job);
    put_scratch(server, connection);
    if (connection->phase != CLOSED && job->has_usage) {
        add_usage_event(cleared(), job);
        put_scratch(server, connection);
    }
    if (connection->phase == CLOSED)
        return;
    cleared();
    if (job->fault.kind != NO_DONE)
        add_event(&scratch, TEXT("[DONE]"));
    bytes_add(&scratch, LAST_CHUNK.at, LAST_CHUNK.length);
    put_end(server, connection, bytes_text(&scratch));
}

static void answer_at_once(Server *server, Connection *connection) {
    Bytes body = {0};
    add_answer_json(&body, &connection->job);
    server->output_tokens += connection->job.output_tokens;
    add_whole(cleared(), 200, JSON, bytes_text(&body), bytes_text(&connection->job.id));
    bytes_free(&body);
    put_end(server, connection, bytes_text(&scratch));
}

/* Hands the chunk to the kernel; false where nothing of it was taken. */
static bool send_chunk(Server *server, Connection *connection) {
    if (!connection->event.length)
        connection->event = content_event(&connection->job, connection->chunk);
    int64_t sent_ns = now_ns();
    long sent = connection->out.length ? 0 : connection_send(server, connection, connection->event);
    if (sent <= 0)
        return false;
    size_t left = connection->event.length - (size_t)sent;
    bytes_add(&connection->out, connection->event.at + sent, left);
    record_add(&server->record, connection->record_id, (uint32_t)connection->chunk, connection->due.due_ns,
               sent_ns);
    connection->event.length = 0;
    return true;
}

/* The connection's due time has come. */
void answer_due(Server *server, Connection *connection) {
    Job *job = &connection->job;
    if (!job->is_streamed) {
        answer_at_once(server, connection);
        return;
    }
    if (!send_chunk(server, connection)) {
        schedule_remove(&server->schedule, &connection->due);
        if (connection->phase != CLOSED)
            connection->phase = BLOCKED;
        return;
    }
    server->output_tokens += tokens_of(job, connection->chunk++);
    if (strike(server, connection)) {
        if (connection->phase == STALLED)
            schedule_remove(&server->schedule, &connection->due);
    } else if (connection->phase != CLOSED) {
        if (connection->chunk < job->chunks)
            schedule_chunk(server, connection);
        else
            finish(server, connection);
    }
}

void answer(Server *server, Connection *connection, const Request *request, int64_t arrived_ns) {
    Refusal refusal = {0};
    size_t page = 0;
    while (page < PAGE_COUNT && !text_is(request->path, PAGES[page].path))
        page++;
    bool is_chat = text_is(request->path, CHAT_PATH);
    if (page == PAGE_COUNT && !is_chat)
        refuse(&refusal, 404,
               "%.*s: no such path; there are " CHAT_PATH ", /v1/models, /health, /info, /metrics",
               AS_PRINTED(request->path));
    else if (!text_is(request->method, is_chat ? "POST" : "GET"))
        refuse(&refusal, 405, "%.*s: not for %.*s", AS_PRINTED(request->method), AS_PRINTED(request->path));
    if (refusal.status)
        answer_refused(server, connection, &refusal);
    else if (is_chat)
        generate(server, connection, request, arrived_ns);
    else
        answer_page(server, connection, page);
}
