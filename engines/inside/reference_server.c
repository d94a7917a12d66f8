/* The reference engine's native server: does what reference_server.py does, which describes it, at the rate
   that a C program can. One thread; `cc -O2 -D_GNU_SOURCE reference_*.c` builds it.

   Between two waits it sends what is due, takes what came, and writes its record where there is time. */
#include "reference.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define BACKLOG 8192
#define EVENTS_PER_WAIT 256
#define SENDS_PER_TURN 32       /* then look for requests */
#define BLOCK_BYTES (16 * 1024) /* about 10 us to write */
#define QUIET_NS 60000          /* nothing due for so long: time to write a block */
#define PENDING_LIMIT_BYTES (1024 * 1024)
#define FLUSH_PERIOD_NS (NS_PER_S / 2)
#define WAKE_GAP_NS 20000
#define NEVER INT64_MAX

/* What the poll's events point to that are no connections. */
static char stopped, timed;
static int stop_file;

static void stop(int signal) {
    (void)signal;
    int kept = errno;
    uint64_t one = 1;
    if (write(stop_file, &one, sizeof one) < 0)
        _exit(1);
    errno = kept;
}

static void handle_signals(const Options *options) {
    struct sigaction action = {.sa_handler = stop};
    stop_file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigaction(SIGINT, &action, NULL);
    if (options->fault.kind == IGNORE_TERM)
        action.sa_handler = SIG_IGN;
    sigaction(SIGTERM, &action, NULL);
}

/* True where a signal came first. */
static bool is_stopped_within(double seconds) {
    int64_t until_ns = now_ns() + (int64_t)(seconds * (double)NS_PER_S), left_ns;
    struct pollfd wait = {.fd = stop_file, .events = POLLIN};
    while ((left_ns = until_ns - now_ns()) > 0) {
        struct timespec left = {left_ns / NS_PER_S, left_ns % NS_PER_S};
        if (ppoll(&wait, 1, &left, NULL) > 0)
            return true;
    }
    return false;
}

static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int listening(int64_t port) {
    int on = 1, file = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t length = sizeof address;
    setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (file < 0 || bind(file, (struct sockaddr *)&address, length) < 0 || listen(file, BACKLOG) < 0)
        die("port %lld: %s", (long long)port, strerror(errno));
    getsockname(file, (struct sockaddr *)&address, &length);
    printf("listening on http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return file;
}

static void watch(Server *server, int file, void *what, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(server->poll_file, EPOLL_CTL_ADD, file, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

/* Stops listening where there are no files left: the clients wait in the backlog until one is closed. */
static void accept_all(Server *server) {
    for (;;) {
        int file = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (file >= 0) {
            open_connection(server, file);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            epoll_ctl(server->poll_file, EPOLL_CTL_DEL, server->listener, NULL);
            server->is_listening = false;
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void reap(Server *server) {
    if (server->closed && !server->is_listening) {
        watch(server, server->listener, &server->listener, EPOLLIN);
        server->is_listening = true;
    }
    free_closed(server);
}

static int64_t next_due_ns(const Server *server) {
    return server->schedule.count ? server->schedule.heap[1]->due_ns : NEVER;
}

/* Few at a time, so that requests are read however late the chunks are. */
static void send_due(Server *server) {
    for (int k = 0; k < SENDS_PER_TURN && next_due_ns(server) <= now_ns(); k++) {
        Connection *connection = (Connection *)server->schedule.heap[1];
        answer_due(server, connection);
        connection_continue(server, connection);
    }
}

/* Writes a block of the record if it is time; when to look again. */
static int64_t keep_record(Server *server, int64_t due_ns) {
    static int64_t flushed_ns;
    int64_t at_ns = now_ns();
    size_t pending = record_pending(&server->record);
    bool is_quiet = due_ns - QUIET_NS > at_ns, is_old = at_ns - flushed_ns >= FLUSH_PERIOD_NS;
    bool has_block = pending >= BLOCK_BYTES;
    if (pending && (is_old || pending > PENDING_LIMIT_BYTES || (is_quiet && has_block))) {
        record_flush(&server->record, BLOCK_BYTES);
        flushed_ns = at_ns;
    }
    pending = record_pending(&server->record);
    return !pending ? NEVER : is_quiet && has_block ? at_ns : flushed_ns + FLUSH_PERIOD_NS;
}

/* Milliseconds for epoll_wait; sets the timer to the instant, which a timeout could not name. Waking up costs
   more than sending, so under load it is done for a few chunks at once. */
static int wait_ms(int timer, int64_t until_ns, int64_t woken_ns) {
    static int64_t set_ns;
    if (until_ns <= now_ns())
        return 0;
    if (until_ns < woken_ns + WAKE_GAP_NS)
        until_ns = woken_ns + WAKE_GAP_NS;
    if (until_ns != set_ns) {
        int64_t at_ns = until_ns == NEVER ? 0 : until_ns;
        struct itimerspec at = {.it_value = {at_ns / NS_PER_S, at_ns % NS_PER_S}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        set_ns = until_ns;
    }
    return -1;
}

static void handle(Server *server, const struct epoll_event *event) {
    if (event->data.ptr == &server->listener)
        accept_all(server);
    else if (event->data.ptr != &timed)
        connection_ready(server, event->data.ptr, event->events & (EPOLLIN | EPOLLHUP | EPOLLERR),
                         event->events & EPOLLOUT);
}

/* Returns after SIGTERM or SIGINT; streams that run are cut. */
static void serve(Server *server) {
    struct epoll_event events[EVENTS_PER_WAIT];
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    server->poll_file = epoll_create1(EPOLL_CLOEXEC);
    watch(server, stop_file, &stopped, EPOLLIN);
    watch(server, timer, &timed, EPOLLIN | EPOLLET);
    watch(server, server->listener, &server->listener, EPOLLIN);
    server->is_listening = true;
    for (int64_t woken_ns = 0;;) {
        fill_slots(server);
        send_due(server);
        int64_t due_ns =
            server->first_waiting && server->running < server->options.slots ? 0 : next_due_ns(server);
        int64_t look_ns = keep_record(server, due_ns);
        int limit_ms = wait_ms(timer, look_ns < due_ns ? look_ns : due_ns, woken_ns);
        int count = epoll_wait(server->poll_file, events, EVENTS_PER_WAIT, limit_ms);
        if (limit_ms)
            woken_ns = now_ns();
        for (int k = 0; k < count; k++) {
            if (events[k].data.ptr == &stopped)
                return;
            handle(server, &events[k]);
        }
        reap(server);
    }
}

int main(int count, char **words) {
    Server server = {.options = read_arguments(count, words)};
    raise_file_limit();
    handle_signals(&server.options);
    open_record(&server.record, server.options.sends);
    /* Written, not only reserved: every page is resident. */
    char *ballast = server.options.memory_bytes ? zeroed((size_t)server.options.memory_bytes) : NULL;
    if (ballast)
        memset(ballast, 1, (size_t)server.options.memory_bytes);
    if (!is_stopped_within(server.options.start_delay_s)) {
        server.listener = listening(server.options.port);
        serve(&server);
    }
    record_flush(&server.record, SIZE_MAX);
    bytes_free(&server.record.pending);
    free(server.schedule.heap);
    free(ballast);
    return 0;
}
