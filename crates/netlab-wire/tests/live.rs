//! Real frames through real namespaces. Each test makes its own and lets them go; without the
//! privilege or the tools to do so it says why and passes.
//!
//! Two nodes, `a` and `b`, and the wire in a third namespace between them. Everything is a child
//! of the test, ended by its own handle.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where and stops")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netlab_wire::config;
use netlab_wire::impair::loss::Loss;
use netlab_wire::journal::{self, Record, Verdict};
use netlab_wire::pool::CHATTER;
use serde_json::{Value, json};

const MS: u64 = 1_000_000;

/// A child process that is ended and reaped with its owner.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace, held open by a process that does nothing.
struct Namespace(Held);

impl Namespace {
    fn new() -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut line = String::new();
        let out = holder.stdout.take().unwrap();
        let _ = BufReader::new(out).read_line(&mut line);
        if line != "ready\n" {
            let _ = holder.wait();
            return Err("no privilege to make a network namespace".into());
        }
        Ok(Self(Held(holder)))
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.0.id())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    fn run(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let output = self.command(words.next().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn text(&self, line: &str) -> String {
        String::from_utf8(self.run(line).stdout).unwrap()
    }
}

/// How the wire reaches the nodes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tap,
    Packet,
}

/// One lab at a time: they measure times.
static ALONE: Mutex<()> = Mutex::new(());

/// Two nodes with a wire between them.
struct Lab {
    a: Namespace,
    b: Namespace,
    wire: Held,
    control: BufReader<UnixStream>,
    journal: PathBuf,
    _hidden: Namespace,
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// Build it, or say why not.
    fn new(kind: Kind, link: Value, name: &str) -> Option<Self> {
        match Self::build(kind, link, name) {
            Ok(lab) => Some(lab),
            Err(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    fn build(kind: Kind, mut link: Value, name: &str) -> Result<Self, String> {
        for tool in ["unshare", "nsenter", "ip", "ping"] {
            let found = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            if !found.split(':').any(|folder| PathBuf::from(folder).join(tool).exists()) {
                return Err(format!("{tool} is not installed"));
            }
        }
        if kind == Kind::Tap && std::fs::File::open("/dev/net/tun").is_err() {
            return Err("/dev/net/tun cannot be opened".into());
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (a, b, hidden) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        if kind == Kind::Packet {
            for (node, device) in [(&a, "wa"), (&b, "wb")] {
                let pid = node.0.0.id();
                hidden.run(&format!("ip link add {device} type veth peer name eth0 netns {pid}"));
                hidden.run(&format!("ip link set {device} up"));
                // Without ethtool the checksums are left unfinished; ICMP does not use the offload.
                let _ = node.command("ethtool").args(["-K", "eth0", "tso", "off", "tx", "off"]).output();
            }
            link["a"] = json!({"packet": "wa"});
            link["b"] = json!({"packet": "wb"});
        } else {
            link["a"] = json!({"tap": "eth0", "netns": a.path()});
            link["b"] = json!({"tap": "eth0", "netns": b.path()});
        }
        let journal = std::env::temp_dir().join(format!("netlab-wire-{}-{name}.journal", std::process::id()));
        link["name"] = "x".into();
        link["journal"] = json!({"path": journal, "flush_ns": 50 * MS});
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        let io_uring = link.as_object_mut().and_then(|link| link.remove("io_uring")).unwrap_or(true.into());
        let config = json!({"version": 1, "forbidden_ns": own, "io_uring": io_uring, "links": [link]});

        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = hidden.command(env!("CARGO_BIN_EXE_netlab-wire"));
        command.arg("-").args(["--control", "0"]).stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        // Standard input is the control channel, and its first line the configuration.
        command.process_group(0);
        let wire = Held(command.spawn().unwrap());
        let mut control = BufReader::new(ours);
        control.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        writeln!(control.get_mut(), "{config}").unwrap();
        let mut lab = Self { a, b, wire, control, journal, _hidden: hidden, _alone: alone };
        let ready = lab.reply();
        if ready["event"] != "ready" {
            return Err(format!("the wire does not start: {ready}"));
        }
        for (node, address) in [(&lab.a, 1), (&lab.b, 2)] {
            node.run("ip link set lo up");
            node.run(&format!("ip address add 10.9.0.{address}/24 dev eth0"));
            node.run("ip link set eth0 up");
        }
        lab.wait_for_an_answer();
        Ok(lab)
    }

    /// An interface may forward late: an answered probe tells. Unless everything is lost.
    fn wait_for_an_answer(&self) {
        let patience = Instant::now() + Duration::from_secs(5);
        while Instant::now() < patience {
            let probe = self.a.command("ping").args(["-c1", "-W1", "-q", "10.9.0.2"]).output().unwrap();
            if probe.status.success() {
                return;
            }
        }
        panic!("no answer through the wire");
    }

    fn reply(&mut self) -> Value {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    fn ask(&mut self, command: Value) -> Value {
        writeln!(self.control.get_mut(), "{command}").unwrap();
        self.reply()
    }

    fn quit(&mut self) -> Value {
        let stats = self.ask(json!({"cmd": "quit"}));
        assert!(self.wire.0.wait().unwrap().success());
        stats
    }

    fn records(&self) -> Vec<Record> {
        journal::read(&std::fs::read(&self.journal).unwrap()).unwrap().1
    }

    /// Round-trip times of `count` pings in ms, in rising order.
    fn ping(&self, count: u32, gap: &str) -> Vec<f64> {
        let output =
            self.a.command("ping").args(["-c", &count.to_string(), "-i", gap, "10.9.0.2"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut times: Vec<f64> = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("time="))
            .map(|ms| ms.parse().unwrap())
            .collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.journal);
    }
}

#[test]
fn round_trips_are_the_sum_of_both_delays() {
    for kind in [Kind::Tap, Kind::Packet] {
        let link = json!({"a_to_b": {"delay_ns": 10 * MS}, "b_to_a": {"delay_ns": 5 * MS}});
        let Some(mut lab) = Lab::new(kind, link, "sum") else { return };
        let times = lab.ping(100, "0.005");
        assert_eq!(times.len(), 100);
        // Never early. How late the others are is a matter of how busy the machine is, ping included.
        assert!((15.0..16.0).contains(&times[0]), "{}", times[0]);
        let stats = lab.quit();
        for (direction, asked) in [(0, 10 * MS), (1, 5 * MS)] {
            let records = lab.records();
            let mut delays: Vec<u64> = records
                .iter()
                .filter(|r| r.direction == direction && r.digest.protocol == 1)
                .map(|r| r.departure_ns - r.arrival_ns)
                .collect();
            delays.sort_unstable();
            assert!(delays[0] >= asked && delays[delays.len() / 2] < asked + MS, "{delays:?}");
        }
        assert_eq!(stats["links"]["x"]["a"]["kernel_drops"], 0, "{stats}");
    }
}

#[test]
fn losses_are_those_the_seed_says() {
    for kind in [Kind::Tap, Kind::Packet] {
        let link = json!({"seed": 11, "a_to_b": {"loss": {"rate": 0.2}}});
        let Some(mut lab) = Lab::new(kind, link, "loss") else { return };
        lab.ping(500, "0.002");
        lab.quit();
        let records: Vec<Record> =
            lab.records().into_iter().filter(|r| r.direction == 0 && r.flags & CHATTER == 0).collect();
        let rate = config::Loss { rate: Some(0.2), correlation: 0.0, ecn: false, gilbert_elliott: None };
        let mut loss = Loss::new(Some(&rate), 11, 0);
        let mut lost = 0;
        assert!(records.len() >= 500);
        for record in &records {
            let expected = if loss.decide(record.index) { Verdict::Loss } else { Verdict::Delivered };
            assert_eq!(record.verdict, expected, "packet {}", record.index);
            lost += u32::from(expected == Verdict::Loss);
        }
        // 99 % interval of a binomial with n = 500, p = 0.2: 100 ± 23.
        assert!((77..=123).contains(&lost), "{lost}");
    }
}

#[test]
fn the_asked_packet_is_dropped_and_no_other() {
    let link = json!({"a_to_b": {"drop": [{"match": "icmp", "nth": [5, 17]}]}});
    let Some(mut lab) = Lab::new(Kind::Packet, link, "exact") else { return };
    lab.ping(40, "0.002");
    lab.quit();
    let dropped: Vec<u64> =
        lab.records().iter().filter(|r| r.verdict != Verdict::Delivered).map(|r| r.index).collect();
    assert_eq!(dropped, [4, 16]);
}

#[test]
fn a_change_under_way_loses_no_packet_and_ends_when_asked() {
    for kind in [Kind::Tap, Kind::Packet] {
        let Some(mut lab) = Lab::new(kind, json!({"a_to_b": {"delay_ns": 2 * MS}}), "live") else { return };
        let changes = json!({"cmd": "set", "direction": "a_to_b", "settings": {"delay_ns": 30 * MS}, "for_ns": 300 * MS});
        let mut pinging = lab
            .a
            .command("ping")
            .args(["-c", "300", "-i", "0.002", "10.9.0.2"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(lab.ask(changes)["ok"], true);
        assert!(pinging.wait().unwrap().success());
        let refused = lab.ask(json!({"cmd": "set", "settings": {"dealy_ns": 1}}));
        assert!(refused["error"]["message"].as_str().unwrap().contains("dealy_ns"));
        let stats = lab.quit();
        assert_eq!(stats["links"]["x"]["a_to_b"]["dropped_overflow"], 0, "{stats}");
        let records = lab.records();
        let pings = records.iter().filter(|r| r.digest.protocol == 1 && r.direction == 0);
        assert!(pings.clone().count() >= 300 && pings.clone().all(|r| r.verdict == Verdict::Delivered));
        let delays: Vec<u64> = records
            .iter()
            .filter(|r| r.direction == 0 && r.digest.protocol == 1)
            .map(|r| (r.departure_ns - r.arrival_ns) / MS)
            .collect();
        let slow = delays.iter().filter(|&&ms| ms >= 30).count();
        assert!((8..250).contains(&slow), "{slow}");
        assert!(delays[0] < 30 && *delays.last().unwrap() < 30);
        let order: Vec<u64> =
            records.iter().filter(|r| r.direction == 0 && r.flags & CHATTER == 0).map(|r| r.index).collect();
        assert!(order.is_sorted());
    }
}

#[test]
fn many_frames_at_once_keep_their_order_whichever_way_they_are_moved() {
    for io_uring in [true, false] {
        let way = json!({"delay_ns": 2 * MS});
        let link = json!({"a_to_b": way, "b_to_a": way, "io_uring": io_uring});
        let Some(mut lab) = Lab::new(Kind::Tap, link, "many") else { return };
        // 64 requests leave before the first answer is waited for, and so on.
        let said = lab.a.text("ping -f -q -c 3000 -l 64 -w 30 10.9.0.2");
        let received = said.split(' ').zip(said.split(' ').skip(1)).find(|(_, word)| *word == "received,");
        let received: u32 = received.and_then(|(count, _)| count.parse().ok()).unwrap_or(0);
        // It stops at the last answer it wants, and takes what comes with that one.
        assert!(received >= 3000, "{said}");
        let stats = lab.quit();
        if stats["threads"][0]["io_uring"] != io_uring {
            eprintln!("skipped: no io_uring here");
        }
        for direction in [0, 1] {
            let records = lab.records();
            let there = records.iter().filter(|r| r.direction == direction && r.flags & CHATTER == 0);
            let (order, times): (Vec<u64>, Vec<u64>) = there.map(|r| (r.index, r.departure_ns)).unzip();
            assert!(order.len() >= 3000 && order.is_sorted() && times.is_sorted());
        }
    }
}

#[test]
fn a_rate_is_what_tcp_gets() {
    if Command::new("iperf3").arg("--version").output().is_err() {
        eprintln!("skipped: iperf3 is not installed");
        return;
    }
    for kind in [Kind::Tap, Kind::Packet] {
        let way = json!({"delay_ns": 5 * MS, "rate": {"bits_per_second": 20_000_000}, "queue": {"kind": "pfifo", "packets": 60}});
        let Some(mut lab) = Lab::new(kind, json!({"a_to_b": way, "b_to_a": way}), "rate") else { return };
        let mut server = Held(
            lab.b
                .command("iperf3")
                .args(["-s", "-1", "--forceflush"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        // Its first line of output is a rule; it is then listening.
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        lines.next();
        let report: Value = serde_json::from_str(&lab.a.text("iperf3 -c 10.9.0.2 -t 3 -O 1 -J")).unwrap();
        let goodput = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6;
        // 1448 of 1514 octets of each frame are payload: 19.13 Mbit/s.
        assert!((16.5..19.3).contains(&goodput), "{goodput}");
        let stats = lab.quit();
        assert_eq!(stats["links"]["x"]["a"]["partial_checksum"], 0, "{stats}");
    }
}

#[test]
fn damage_is_noticed_by_checksums() {
    let link = json!({"seed": 3, "a_to_b": {"corrupt": {"rate": 0.5}}});
    for kind in [Kind::Tap, Kind::Packet] {
        let Some(mut lab) = Lab::new(kind, link.clone(), "damage") else { return };
        let answered = lab.ping(200, "0.002").len();
        lab.quit();
        let damaged = lab
            .records()
            .iter()
            .filter(|r| r.direction == 0 && r.flags & CHATTER == 0 && r.corrupt_bit != u32::MAX)
            .count();
        let sent = lab.records().iter().filter(|r| r.direction == 0 && r.flags & CHATTER == 0).count();
        // The answer to the first probe, sent to see whether the link works, may be among them.
        assert!(damaged > 60 && answered.abs_diff(sent - damaged) <= 3, "{answered} {sent} {damaged}");
    }
}

#[test]
fn an_unplugged_link_comes_back() {
    for kind in [Kind::Tap, Kind::Packet] {
        let Some(mut lab) = Lab::new(kind, json!({"a_to_b": {"delay_ns": 3 * MS}}), "several") else {
            return;
        };
        lab.a.run("ip link set eth0 down");
        lab.b.command("ping").args(["-c5", "-i", "0.01", "-W1", "-q", "10.9.0.1"]).output().unwrap();
        lab.a.run("ip link set eth0 up");
        lab.wait_for_an_answer();
        let stats = lab.quit();
        let way = &stats["links"]["x"]["b_to_a"];
        assert!(way["dropped_down"].as_u64().unwrap() > 0, "{way}");
        assert_eq!(way["dropped_overflow"], 0, "{way}");
    }
}

#[test]
fn one_thread_serves_several_links() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let hidden = match Namespace::new() {
        Ok(hidden) => hidden,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let nodes: Vec<Namespace> = (0..4).map(|_| Namespace::new().unwrap()).collect();
    let mut links = Vec::new();
    for (i, pair) in nodes.chunks(2).enumerate() {
        for (node, end) in pair.iter().zip(["a", "b"]) {
            let pid = node.0.0.id();
            hidden.run(&format!("ip link add w{i}{end} type veth peer name eth0 netns {pid}"));
            hidden.run(&format!("ip link set w{i}{end} up"));
        }
        links.push(json!({"name": format!("l{i}"), "a": {"packet": format!("w{i}a")}, "b": {"packet": format!("w{i}b")},
            "b_to_a": {"delay_ns": (i as u64 + 1) * 5 * MS}}));
    }
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    let config = json!({"version": 1, "forbidden_ns": own, "threads": 1, "links": links});
    let mut wire = Held(
        hidden
            .command(env!("CARGO_BIN_EXE_netlab-wire"))
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut input = wire.0.stdin.take().unwrap();
    writeln!(input, "{config}").unwrap();
    let mut output = BufReader::new(wire.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("ready"), "{line}");
    for pair in nodes.chunks(2) {
        for (node, address) in pair.iter().zip([1, 2]) {
            node.run(&format!("ip address add 10.9.0.{address}/24 dev eth0"));
            node.run("ip link set eth0 up");
        }
    }
    for (i, pair) in nodes.chunks(2).enumerate() {
        let text = pair[0].text("ping -c 20 -i 0.01 -w 5 10.9.0.2");
        let best: f64 =
            text.split("min/avg/max/mdev = ").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
        let asked = 5.0 * (i as f64 + 1.0);
        assert!((asked..asked + 1.0).contains(&best), "{text}");
    }
    drop(input); // the end of input is the end of the wire
    assert!(wire.0.wait().unwrap().success());
}

#[test]
fn a_killed_wire_leaves_a_readable_journal() {
    let Some(mut lab) = Lab::new(Kind::Packet, json!({}), "killed") else { return };
    lab.ping(100, "0.002");
    std::thread::sleep(Duration::from_millis(200)); // longer than the flush interval of 50 ms
    lab.wire.0.kill().unwrap();
    lab.wire.0.wait().unwrap();
    let raw = std::fs::read(&lab.journal).unwrap();
    let (header, records) = journal::read(&raw).unwrap();
    assert!(!header.complete);
    assert!(records.iter().filter(|r| r.direction == 0 && r.digest.protocol == 1).count() >= 100);
}

#[test]
fn closing_the_control_channel_ends_the_wire_in_good_order() {
    let Some(mut lab) = Lab::new(Kind::Packet, json!({}), "closed") else { return };
    lab.control.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    assert!(lab.wire.0.wait().unwrap().success());
    assert!(journal::read(&std::fs::read(&lab.journal).unwrap()).unwrap().0.complete);
}

#[test]
fn the_forbidden_namespace_is_refused() {
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    let config = json!({"version": 1, "forbidden_ns": own,
        "links": [{"name": "x", "a": {"tap": "nw-never0"}, "b": {"tap": "nw-never1"}}]});
    let mut wire = Command::new(env!("CARGO_BIN_EXE_netlab-wire"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(wire.stdin.take().unwrap(), "{config}").unwrap();
    let output = wire.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("own network namespace"));
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""event":"failed""#));
}
