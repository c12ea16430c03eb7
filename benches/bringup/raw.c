/* The floor: namespaces, veths, addresses and routes by bare rtnetlink, nothing else.
 *
 * usage: raw [names] < network        (the text of network.py)
 *
 * Prints the seconds from the parsed network to the last acknowledgement, then waits for the end of
 * its standard input (a second line of it) and exits, which takes everything away. With `names`
 * every namespace gets its name under /run/netns, and is unmounted at the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX 5000
#define BURST 200

static int n, nlinks, nroutes, nforward, names;
static int ns[MAX], sock[MAX];
static struct { int a, b; char an[16], bn[16]; unsigned base; } wire[MAX];
static struct { int node, len; struct in_addr to, via; } way[2 * MAX];
static int forward[MAX];
static char buffer[1 << 20];
static size_t used;
static struct nlmsghdr *last;
static int count;

static void die(const char *what)
{
	fprintf(stderr, "raw: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void flush(int s)
{
	char in[16384];
	if (!used)
		return;
	last->nlmsg_flags |= NLM_F_ACK;
	if (send(s, buffer, used, 0) < 0)
		die("send");
	for (int done = 0; !done;) {
		int len = recv(s, in, sizeof in, 0);
		for (struct nlmsghdr *h = (void *)in; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
			struct nlmsgerr *e = NLMSG_DATA(h);
			if (h->nlmsg_type == NLMSG_ERROR && e->error) {
				errno = -e->error;
				die("refused");
			}
			done = 1;
		}
	}
	used = count = 0;
}

static void *begin(int type, int flags, const void *body, size_t size)
{
	last = (void *)(buffer + used);
	memset(last, 0, NLMSG_LENGTH(size));
	last->nlmsg_type = type;
	last->nlmsg_flags = NLM_F_REQUEST | flags;
	last->nlmsg_len = NLMSG_LENGTH(size);
	memcpy(NLMSG_DATA(last), body, size);
	return last;
}

static struct rtattr *put(int type, const void *data, size_t size)
{
	struct rtattr *a = (void *)((char *)last + NLMSG_ALIGN(last->nlmsg_len));
	a->rta_type = type;
	a->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(a), data, size);
	last->nlmsg_len = NLMSG_ALIGN(last->nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

static void close_nest(struct rtattr *a)
{
	a->rta_len = (char *)last + last->nlmsg_len - (char *)a;
}

static void end_message(int s)
{
	used += NLMSG_ALIGN(last->nlmsg_len);
	if (++count == BURST || used > sizeof buffer - 4096)
		flush(s);
}

static void add_veth(int s, int i)
{
	struct ifinfomsg none = {0}, info = {.ifi_index = 100 + 2 * i}, peer = {.ifi_index = 101 + 2 * i};
	begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info, sizeof info);
	put(IFLA_IFNAME, wire[i].an, strlen(wire[i].an) + 1);
	put(IFLA_NET_NS_FD, &ns[wire[i].a], 4);
	struct rtattr *link = put(IFLA_LINKINFO, 0, 0);
	put(IFLA_INFO_KIND, "veth", 4);
	struct rtattr *data = put(IFLA_INFO_DATA, 0, 0);
	struct rtattr *other = put(VETH_INFO_PEER, &none, sizeof none);
	memcpy(RTA_DATA(other), &peer, sizeof peer);
	put(IFLA_IFNAME, wire[i].bn, strlen(wire[i].bn) + 1);
	put(IFLA_NET_NS_FD, &ns[wire[i].b], 4);
	close_nest(other);
	close_nest(data);
	close_nest(link);
	end_message(s);
}

static void add_address(int s, int index, unsigned ip)
{
	struct ifaddrmsg m = {AF_INET, 30, 0, 0, index};
	unsigned net = htonl(ip), brd = htonl(ip | 3);
	begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m);
	put(IFA_LOCAL, &net, 4);
	put(IFA_ADDRESS, &net, 4);
	put(IFA_BROADCAST, &brd, 4);
	end_message(s);
}

static void set_up(int s, int index)
{
	struct ifinfomsg m = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	begin(RTM_NEWLINK, 0, &m, sizeof m);
	end_message(s);
}

static void add_route(int s, int i)
{
	struct rtmsg m = {.rtm_family = AF_INET, .rtm_dst_len = way[i].len, .rtm_table = RT_TABLE_MAIN,
			  .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST};
	begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m);
	if (way[i].len)
		put(RTA_DST, &way[i].to, 4);
	put(RTA_GATEWAY, &way[i].via, 4);
	end_message(s);
}

static void path_of(char *path, int i)
{
	sprintf(path, "/run/netns/nlb%d", i);
}

static void up(void)
{
	char path[64];
	/* per node: lists of its links and routes, so that each node is one burst */
	int *head = malloc(MAX * sizeof(int)), *next = malloc(2 * MAX * sizeof(int));
	int *rhead = malloc(MAX * sizeof(int)), *rnext = malloc(2 * MAX * sizeof(int));
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int root = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), f = 0;
	for (int i = 0; i < n; i++) {
		if (unshare(CLONE_NEWNET))
			die("unshare");
		if (names) {
			path_of(path, i);
			close(open(path, O_CREAT | O_EXCL | O_RDONLY, 0444));
			if (mount("/proc/thread-self/ns/net", path, "none", MS_BIND, 0))
				die("mount");
		}
		ns[i] = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
		sock[i] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
		if (ns[i] < 0 || sock[i] < 0)
			die("namespace");
		if (f < nforward && forward[f] == i) {
			int fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY);
			if (write(fd, "1", 1) != 1)
				die("ip_forward");
			close(fd);
			f++;
		}
		head[i] = rhead[i] = -1;
	}
	if (setns(home, CLONE_NEWNET))
		die("setns");
	for (int i = 0; i < nlinks; i++)
		add_veth(root, i);
	flush(root);
	for (int i = nlinks - 1; i >= 0; i--) {
		next[2 * i] = head[wire[i].a], head[wire[i].a] = 2 * i;
		next[2 * i + 1] = head[wire[i].b], head[wire[i].b] = 2 * i + 1;
	}
	for (int i = nroutes - 1; i >= 0; i--)
		rnext[i] = rhead[way[i].node], rhead[way[i].node] = i;
	for (int i = 0; i < n; i++) {
		set_up(sock[i], 1);
		for (int e = head[i]; e >= 0; e = next[e]) {
			add_address(sock[i], 100 + e, wire[e / 2].base + 1 + e % 2);
			set_up(sock[i], 100 + e);
		}
		for (int r = rhead[i]; r >= 0; r = rnext[r])
			add_route(sock[i], r);
		flush(sock[i]);
	}
}

int main(int argc, char **argv)
{
	char line[256], a[64], b[64];
	struct rlimit limit;
	struct timespec t0, t1;
	names = argc > 1 && !strcmp(argv[1], "names");
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	while (fgets(line, sizeof line, stdin) && line[0] != 'g') {
		if (line[0] == 'n')
			n = atoi(line + 2);
		else if (line[0] == 'l') {
			sscanf(line, "l %d %15s %d %15s %u", &wire[nlinks].a, wire[nlinks].an,
			       &wire[nlinks].b, wire[nlinks].bn, &wire[nlinks].base);
			nlinks++;
		} else if (line[0] == 'r') {
			sscanf(line, "r %d %63s %d %63s", &way[nroutes].node, a, &way[nroutes].len, b);
			inet_aton(a, &way[nroutes].to);
			inet_aton(b, &way[nroutes].via);
			nroutes++;
		} else if (line[0] == 'f')
			forward[nforward++] = atoi(line + 2);
	}
	if (names)
		mkdir("/run/netns", 0755);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	up();
	clock_gettime(CLOCK_MONOTONIC, &t1);
	printf("%.6f\n", t1.tv_sec - t0.tv_sec + (t1.tv_nsec - t0.tv_nsec) / 1e9);
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
		;
	for (int i = 0; names && i < n; i++) {
		path_of(line, i);
		umount2(line, MNT_DETACH);
		unlink(line);
	}
	return 0;
}
