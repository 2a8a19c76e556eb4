/*
 * The fastest gRPC backend that fits on a page: answers every unary call with
 * the same message, so that what is measured is what stands before it.
 *
 *   backend ADDRESS PORT   (or TRELLIS_LISTEN=ADDRESS:PORT)
 *
 * With BENCH_TELL=PATH it sends "INSTANCE PID MONOTONIC_NS" to that UNIX datagram socket when it
 * starts.
 *
 * The message is 08 01: HealthCheckResponse{SERVING}, and for other types an
 * unknown field. Request headers are not decoded. One thread, epoll.
 *
 * Bound: CONNECTIONS_MAX connections of 64 KiB input; answers are small, and a
 * client that does not read them is closed. Flow control of answers is not kept:
 * 7 bytes per call stay far below every client's window.
 * Source: RFC 9113, RFC 7541 section 6.2.2, the gRPC over HTTP/2 protocol.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define IN_MAX 65536
#define OUT_MAX (1 << 20)

enum { DATA, HEADERS, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };

struct connection {
    int fd, greeted;
    size_t in_len, out_len;
    uint32_t received;
    uint8_t in[IN_MAX];
    uint8_t out[OUT_MAX];
};

static struct connection *connections[CONNECTIONS_MAX * 8];

static void put(struct connection *c, const void *bytes, size_t len)
{
    if (c->out_len + len <= OUT_MAX)
        memcpy(c->out + c->out_len, bytes, len);
    c->out_len += len; /* beyond OUT_MAX the connection is closed */
}

static void frame(struct connection *c, int type, int flags, uint32_t stream, const void *body, uint32_t len)
{
    uint8_t head[9] = {len >> 16, len >> 8, len, type, flags, stream >> 24, stream >> 16, stream >> 8, stream};
    put(c, head, sizeof head);
    put(c, body, len);
}

static void answer(struct connection *c, uint32_t stream)
{
    /* :status 200 (indexed); content-type and grpc-status as literals that are not indexed */
    static const uint8_t headers[] = "\x88\x0f\x10\x10" "application/grpc";
    static const uint8_t message[] = {0, 0, 0, 0, 2, 8, 1};
    static const uint8_t trailers[] = "\x00\x0b" "grpc-status" "\x01" "0";
    frame(c, HEADERS, 4, stream, headers, sizeof headers - 1);
    frame(c, DATA, 0, stream, message, sizeof message);
    frame(c, HEADERS, 5, stream, trailers, sizeof trailers - 1);
}

static void window(struct connection *c, uint32_t by)
{
    uint8_t body[4] = {by >> 24, by >> 16, by >> 8, by};
    frame(c, WINDOW_UPDATE, 0, 0, body, 4);
}

static void take(struct connection *c, int type, int flags, uint32_t stream, const uint8_t *body, uint32_t len)
{
    if (type == SETTINGS && !(flags & 1))
        frame(c, SETTINGS, 1, 0, "", 0);
    else if (type == PING && !(flags & 1))
        frame(c, PING, 1, 0, body, len);
    else if (type == DATA && (c->received += len) > 16384) {
        window(c, c->received);
        c->received = 0;
    }
    if ((type == DATA || type == HEADERS) && (flags & 1))
        answer(c, stream);
}

/* Takes whole frames; 0 when the connection cannot go on. */
static int consume(struct connection *c)
{
    size_t at = 0;
    if (!c->greeted) {
        if (c->in_len < 24)
            return 1;
        at = 24;
        c->greeted = 1;
        /* at most 1,000 streams at once */
        frame(c, SETTINGS, 0, 0, "\0\3\0\0\3\xe8", 6);
    }
    while (c->in_len - at >= 9) {
        const uint8_t *p = c->in + at;
        uint32_t len = p[0] << 16 | p[1] << 8 | p[2];
        if (len > 16384)
            return 0;
        if (c->in_len - at < 9 + len)
            break;
        uint32_t stream = (p[5] & 127u) << 24 | p[6] << 16 | p[7] << 8 | p[8];
        if (p[3] == GOAWAY)
            return 0;
        take(c, p[3], p[4], stream, p + 9, len);
        at += 9 + len;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    return c->out_len <= OUT_MAX;
}

static int flush(struct connection *c)
{
    if (c->out_len == 0)
        return 1;
    ssize_t sent = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (sent != (ssize_t)c->out_len)
        return 0;
    c->out_len = 0;
    return 1;
}

static int serve(struct connection *c)
{
    ssize_t got = recv(c->fd, c->in + c->in_len, IN_MAX - c->in_len, 0);
    if (got <= 0)
        return 0;
    c->in_len += got;
    return consume(c) && flush(c);
}

static int listen_on(const char *address, int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1 || bind(fd, (void *)&at, sizeof at) || listen(fd, 512)) {
        perror("backend: cannot listen");
        exit(1);
    }
    return fd;
}

static void greet(int poll, int listener)
{
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return;
    if (fd >= (int)(sizeof connections / sizeof *connections)) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connections[fd] = calloc(1, sizeof **connections);
    connections[fd]->fd = fd;
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.fd = fd}});
}

static void tell_start(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct timespec now;
    char line[256];
    const char *instance = getenv("TRELLIS_INSTANCE");
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    int len = snprintf(line, sizeof line, "%s %d %lld", instance ? instance : "-", (int)getpid(),
                       now.tv_sec * 1000000000LL + now.tv_nsec);
    sendto(fd, line, len, 0, (void *)&to, sizeof to);
    close(fd);
}

int main(int argc, char **argv)
{
    if (getenv("BENCH_TELL"))
        tell_start(getenv("BENCH_TELL"));
    char address[64] = "127.0.0.1";
    int port = 20000;
    const char *given = getenv("TRELLIS_LISTEN");
    if (argc == 3) {
        snprintf(address, sizeof address, "%s", argv[1]);
        port = atoi(argv[2]);
    } else if (given && strrchr(given, ':')) {
        port = atoi(strrchr(given, ':') + 1);
        snprintf(address, sizeof address, "%.*s", (int)(strrchr(given, ':') - given), given);
    }
    int listener = listen_on(address, port), poll = epoll_create1(0);
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &(struct epoll_event){EPOLLIN, {.fd = listener}});
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                greet(poll, listener);
            else if (!serve(connections[fd])) {
                close(fd);
                free(connections[fd]);
            }
        }
    }
}
