//! The event loop: the only part that reads clocks and moves real frames.
//!
//! The calling thread serves the control channel. Links are dealt to worker threads, each link to
//! one, which alternate between reading every port, sending what is due, and waiting (`ppoll` to the
//! nanosecond) for a frame or the next due time. Within `spin_ns` of a due time a worker looks at
//! its ports instead of sleeping, because waking up may take longer than that. While frames keep
//! coming or going it sleeps `gather_ns` on a timer alone, deaf to frames, and then takes what has gathered:
//! a sender that must wake its reader for every frame pays more for that than for the frame.
//!
//! A worker that cannot keep up says so: departures late against their due time are counted
//! (`late_fraction`, `max_late_ns`), so are passes that took long (`overruns`), the time it wanted a
//! processor and had none (`run_delay_ns`), and frames the kernel dropped before they were read (`kernel_drops`).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::{Config, Link, refuse};
use crate::control::{Channel, Command, Incoming, failure};
use crate::direction::{Direction, RESERVE};
use crate::journal::{Journal, Record, Sink, Verdict};
use crate::pool::{Pool, Slot};
use crate::port::{Forbidden, Port, open};
use crate::schedule::{Script, Timeline};
use crate::sys::{self, BATCH, Batch, Urgency, Waiting};
use crate::{Attempt, WireError};

/// Frames sent in one go before the ports are read again.
const TURN: usize = 64;
/// A pass of a worker over its links that takes longer counts as an overrun.
const OVERRUN_NS: u64 = 1_000_000;
/// Passes that move frames belong to one stream when they are at most this far apart.
const STREAM_NS: u64 = 100_000;
/// Without rest for so long, a worker stops going before all others; it stays so at least as long.
const RANK_NS: u64 = 20_000_000;
/// Longest sleep; a bound on how late a missed wake-up can be noticed.
const LONGEST_SLEEP_NS: u64 = 1_000_000_000;
/// How long to wait before offering frames again to a port that was busy.
const BUSY_NS: u64 = 50_000;
/// Longest a worker may take to answer the control thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// Run until told to quit, until the control channel closes, or until a signal; answers the last statistics.
///
/// `control` is a descriptor of a stream socket; it is duplicated, the caller keeps its own. The
/// process should be there for this alone: SIGTERM and SIGINT are taken over, and unless
/// `die_with_parent` is false the process is killed when its parent dies.
///
/// # Errors
/// A configuration that is refused, the machine's own network namespace, a device that cannot be opened.
/// It is also told as the event `failed` on the control channel.
pub fn run(config: &str, control: RawFd) -> Result<Value, WireError> {
    let mut channel =
        Channel::new(sys::duplicate(control).attempting(|| "use the control descriptor".into())?);
    let result = Wire::start(config).and_then(|mut wire| wire.serve(&mut channel));
    if let Err(error) = &result {
        let mut event = failure(error);
        event["event"] = "failed".into();
        // When nobody listens any more, the caller of this function still gets the error.
        let _ = channel.send(&event);
    }
    result
}

/// Figures of a worker, and the counters of each of its links.
type Report = (Value, Map<String, Value>);

/// What the control thread asks of a worker.
enum Request {
    Stats(Sender<Report>),
    /// New steps for a link, and the monotonic time that is their zero.
    Script(usize, Script, u64),
    Flush(Sender<()>),
    Quit(Sender<Report>),
}

struct Worker {
    requests: Sender<Request>,
    bell: UnixStream,
    thread: Option<JoinHandle<Result<(), WireError>>>,
}

impl Worker {
    fn ask(&mut self, request: Request) {
        // A worker that ended is found out by its alarm; until then asking it is idle.
        let _ = self.requests.send(request);
        let _ = self.bell.write(&[1]);
    }
}

struct Wire {
    workers: Vec<Worker>,
    links: Vec<Steered>,
    ready: Value,
    alarm: UnixStream,
    hold: bool,
}

/// A link as the control thread knows it.
struct Steered {
    name: String,
    worker: usize,
    place: usize,
    timeline: Timeline,
    /// Monotonic zero of its schedule, once that runs.
    origin: Option<u64>,
}

impl Wire {
    fn start(config: &str) -> Result<Self, WireError> {
        let config = Config::parse(config)?;
        let forbidden = Forbidden::new(config.forbidden_ns)?;
        forbidden.check()?;
        if config.die_with_parent {
            sys::die_with_parent().attempting(|| "ask to die with the parent".into())?;
        }

        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = config.threads.unwrap_or(processors).clamp(1, config.links.len());
        let mut served: Vec<Vec<Served>> = (0..threads).map(|_| Vec::new()).collect();
        let mut links = Vec::new();
        let mut ready = Map::new();
        let hold = config.hold_schedule;
        for (i, link) in config.links.iter().enumerate() {
            let timeline = Timeline::new(link)?;
            let ports = [open(&link.a, link.mtu, forbidden)?, open(&link.b, link.mtu, forbidden)?];
            let now = sys::monotonic_ns();
            let mut script = timeline.script(0)?;
            if hold {
                script.keep_first();
            }
            let mut built = Served::new(link, ports, script, now, config.tolerance_ns)?;
            ready.insert(link.name.clone(), built.describe());
            let worker = i % threads;
            let origin = (!hold).then_some(now);
            links.push(Steered {
                name: link.name.clone(),
                worker,
                place: served[worker].len(),
                timeline,
                origin,
            });
            served[worker].push(built);
        }
        let (alarm, ring) = UnixStream::pair().attempting(|| "make a socket pair".into())?;
        let mut workers = Vec::new();
        for links in served {
            let (requests, inbox) = channel();
            let (bell, bell_end) = UnixStream::pair().attempting(|| "make a socket pair".into())?;
            bell.set_nonblocking(true).attempting(|| "make a socket pair".into())?;
            bell_end.set_nonblocking(true).attempting(|| "make a socket pair".into())?;
            let mut ring = ring.try_clone().attempting(|| "copy a descriptor".into())?;
            let config = config.clone();
            let thread = std::thread::Builder::new().name("wire".into()).spawn(move || {
                let result = Loop::new(links, inbox, bell_end, &config).run();
                let _ = ring.write(&[1]);
                result
            });
            let thread = Some(thread.attempting(|| "start a thread".into())?);
            workers.push(Worker { requests, bell, thread });
        }
        Ok(Self { workers, links, ready: Value::Object(ready), alarm, hold })
    }

    fn serve(&mut self, channel: &mut Channel) -> Result<Value, WireError> {
        let signals = sys::termination_signals().attempting(|| "take over the signals".into())?;
        let mut waiting = Waiting::default();
        let control = waiting.add(channel.descriptor());
        let signal = waiting.add(signals.as_raw_fd());
        let alarm = waiting.add(self.alarm.as_raw_fd());
        let event = json!({"event": "ready", "pid": std::process::id(), "monotonic_ns": sys::monotonic_ns(),
            "schedule_held": self.hold, "links": self.ready});
        let mut open = channel.send(&event).is_ok();
        while open {
            waiting.wait(None).attempting(|| "wait for commands".into())?;
            if waiting.ready(alarm) {
                return Err(self.post_mortem());
            }
            if waiting.ready(signal) {
                break;
            }
            if !waiting.ready(control) {
                continue;
            }
            for incoming in channel.receive() {
                let quit = matches!(incoming, Incoming::Line(Ok(Command::Quit {})) | Incoming::Closed);
                if quit {
                    open = matches!(incoming, Incoming::Line(_));
                    let stats = self.quit();
                    if open {
                        let _ = channel.send(&stats);
                    }
                    return Ok(stats);
                }
                if let Incoming::Line(command) = incoming {
                    let reply = command.and_then(|command| self.obey(command));
                    open = channel.send(&reply.unwrap_or_else(|error| failure(&error))).is_ok();
                }
            }
        }
        Ok(self.quit())
    }

    fn obey(&mut self, command: Command) -> Result<Value, WireError> {
        match command {
            Command::Stats {} => Ok(self.gather(Request::Stats)),
            Command::Quit {} => Ok(self.quit()),
            Command::Flush {} => {
                for worker in &mut self.workers {
                    let (sender, receiver) = channel();
                    worker.ask(Request::Flush(sender));
                    let _ = receiver.recv_timeout(PATIENCE);
                }
                Ok(json!({"ok": true}))
            }
            Command::Start {} => {
                let now = sys::monotonic_ns();
                for link in &mut self.links {
                    let script = link.timeline.script(0)?;
                    link.origin = Some(now);
                    self.workers[link.worker].ask(Request::Script(link.place, script, now));
                }
                Ok(json!({"ok": true, "monotonic_ns": now}))
            }
            Command::Set { link, direction, settings, merge, for_ns, then } => {
                let now = sys::monotonic_ns();
                let count = self.links.len();
                let found = self.links.iter_mut().find(|l| match &link {
                    Some(name) => *name == l.name,
                    None => count == 1,
                });
                let Some(found) = found else {
                    let what =
                        link.map_or("give 'link'; there are several".into(), |l| format!("no link '{l}'"));
                    return Err(refuse("set", what));
                };
                let mut zero = found.origin.unwrap_or(now);
                let at = now - zero;
                if for_ns.is_some() && found.origin.is_none() {
                    // The clock of the schedule does not run yet: it must, to end the change.
                    found.origin = Some(now);
                    zero = now;
                }
                found.timeline.set(at, direction, &settings, merge, for_ns, then.as_ref())?;
                let mut script = found.timeline.script(at)?;
                if found.origin.is_none() {
                    script.keep_first();
                }
                self.workers[found.worker].ask(Request::Script(found.place, script, zero));
                Ok(json!({"ok": true, "monotonic_ns": now}))
            }
        }
    }

    fn gather(&mut self, request: fn(Sender<Report>) -> Request) -> Value {
        let (mut threads, mut links) = (Vec::new(), Map::new());
        for worker in &mut self.workers {
            let (sender, receiver) = channel();
            worker.ask(request(sender));
            if let Ok((thread, mut of_thread)) = receiver.recv_timeout(PATIENCE) {
                threads.push(thread);
                links.append(&mut of_thread);
            }
        }
        json!({"ok": threads.len() == self.workers.len(), "monotonic_ns": sys::monotonic_ns(),
            "threads": threads, "links": links})
    }

    fn quit(&mut self) -> Value {
        let stats = self.gather(Request::Quit);
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
        stats
    }

    /// Why a worker ended that nobody asked to.
    fn post_mortem(&mut self) -> WireError {
        for worker in &mut self.workers {
            if worker.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                match worker.thread.take().map(JoinHandle::join) {
                    Some(Ok(Err(error))) => return error,
                    Some(Err(_)) => break,
                    _ => {}
                }
            }
        }
        WireError::System("move frames".into(), std::io::Error::other("a thread of the wire died"))
    }
}

/// A journal, if there is one.
#[derive(Debug)]
struct Notes(Option<Journal>);

impl Sink for Notes {
    #[inline]
    fn record(&mut self, record: &Record) {
        if let Some(journal) = &mut self.0 {
            journal.record(record);
        }
    }
}

/// A link in the hands of a worker.
struct Served {
    name: String,
    ports: [Box<dyn Port>; 2],
    directions: [Direction; 2],
    /// Frames whose time had come when the port was busy, by direction.
    held: [Vec<Slot>; 2],
    pool: Pool,
    notes: Notes,
    script: Script,
    origin: u64,
}

impl Served {
    fn new(
        link: &Link,
        ports: [Box<dyn Port>; 2],
        mut script: Script,
        now: u64,
        tolerance_ns: u64,
    ) -> Result<Self, WireError> {
        let count = link.buffers.unwrap_or(65_536) + RESERVE + 2 * BATCH;
        // Room for the largest frame with two VLAN tags and one more that the kernel took out.
        let slot_size = (link.mtu as usize + 14 + 12 + 4).next_multiple_of(64);
        let journal = link.journal.as_ref().map(|config| {
            Journal::create(config, &link.name, link.seed, now, sys::realtime_ns())
                .attempting(|| format!("create the journal {}", config.path))
        });
        let first = script.take(0).ok_or_else(|| refuse(&link.name, "no settings"))?;
        let [there, back] = first.settings;
        let direction =
            |number, settings| Direction::new(number, link.seed, settings, now, tolerance_ns, count);
        Ok(Self {
            name: link.name.clone(),
            ports,
            directions: [direction(0, there), direction(1, back)],
            held: [Vec::with_capacity(TURN), Vec::with_capacity(TURN)],
            pool: Pool::new(count, slot_size),
            notes: Notes(journal.transpose()?),
            script,
            origin: now,
        })
    }

    fn describe(&mut self) -> Value {
        json!({"a": self.ports[0].stats(), "b": self.ports[1].stats()})
    }

    /// Read the port of one side; answers how many frames came.
    fn receive(&mut self, side: usize, batch: &mut Batch, frames: &mut Vec<Slot>) -> std::io::Result<usize> {
        frames.clear();
        self.ports[side].receive(&mut self.pool, batch, frames)?;
        for &slot in &*frames {
            let arrival = self.pool.meta(slot).arrival_ns;
            self.directions[side].arrive(arrival, slot, &mut self.pool, &mut self.notes);
        }
        Ok(frames.len())
    }

    /// Send what is due in one direction, at most a turn; answers how many frames left.
    fn send(&mut self, way: usize, batch: &mut Batch) -> std::io::Result<usize> {
        let (port, direction) = (&mut self.ports[1 - way], &mut self.directions[way]);
        let (held, pool, notes) = (&mut self.held[way], &mut self.pool, &mut self.notes);
        let burst = port.burst(batch);
        let mut count = 0;
        while count < TURN {
            let mut now = sys::monotonic_ns();
            while held.len() < burst {
                let Some(slot) = direction.pop(now, pool, notes) else { break };
                held.push(slot);
            }
            if held.is_empty() {
                break;
            }
            let sent = port.send(pool, batch, held)?;
            if burst > 1 {
                now = sys::monotonic_ns();
            }
            for &slot in &held[..sent.taken] {
                direction.delivered(now, slot, pool, notes);
            }
            if let Some(verdict) = sent.refused {
                direction.refused(now, held[sent.taken], verdict, pool, notes);
            }
            let gone = sent.taken + usize::from(sent.refused.is_some());
            held.drain(..gone);
            count += gone;
            if gone == 0 {
                break;
            }
        }
        Ok(count)
    }

    /// Let scheduled changes take effect.
    fn keep_schedule(&mut self, now: u64) {
        while let Some(step) = self.script.take(now.saturating_sub(self.origin)) {
            for (direction, settings) in self.directions.iter_mut().zip(step.settings) {
                direction.replace(settings, now, &mut self.pool, &mut self.notes);
            }
        }
    }

    /// The next time at which something is to be done here.
    fn next(&self, now: u64) -> Option<u64> {
        let held = self.held.iter().any(|held| !held.is_empty()).then_some(now + BUSY_NS);
        let change = self.script.next().map(|at| at + self.origin);
        let flush = self.notes.0.as_ref().and_then(Journal::next_flush);
        let [there, back] = [0, 1].map(|way| self.directions[way].next_due());
        [held, change, flush, there, back].into_iter().flatten().min()
    }

    /// Account for what has not left, and close the journal.
    fn close(&mut self, now: u64) {
        for (direction, held) in self.directions.iter_mut().zip(&mut self.held) {
            for slot in held.drain(..) {
                direction.refused(now, slot, Verdict::Unfinished, &mut self.pool, &mut self.notes);
            }
            direction.abandon(now, &mut self.pool, &mut self.notes);
        }
        if let Some(journal) = &mut self.notes.0 {
            journal.close(now);
        }
    }

    fn stats(&mut self) -> Value {
        let way = |d: &Direction, held: &Vec<Slot>| {
            d.counters.json(d.backlog(), d.in_flight() + held.len(), d.untracked())
        };
        let counts = self.notes.0.as_ref().map(Journal::counts);
        json!({
            "a_to_b": way(&self.directions[0], &self.held[0]),
            "b_to_a": way(&self.directions[1], &self.held[1]),
            "a": self.ports[0].stats(), "b": self.ports[1].stats(),
            "buffers": self.pool.capacity(), "buffers_free": self.pool.free(),
            "journal": counts.map(|(written, missed)| json!({"written": written, "missed": missed})),
        })
    }
}

/// Whether frames keep coming or going, a few at a time.
#[derive(Debug, Default)]
struct Stream {
    last_ns: u64,
    last_count: usize,
    passes: u32,
}

impl Stream {
    /// A pass at `now` has moved `count` frames.
    fn note(&mut self, now: u64, count: usize) {
        if count == 0 {
            return;
        }
        self.passes = if now - self.last_ns < STREAM_NS { self.passes + 1 } else { 0 };
        (self.last_ns, self.last_count) = (now, count);
    }

    /// Several passes not far apart have moved some, the last one few: more gather while we sleep.
    fn flows_thinly(&self, now: u64) -> bool {
        self.passes >= 4 && self.last_count < BATCH / 4 && now - self.last_ns < STREAM_NS
    }
}

/// The worker's place among other threads: before all of them while it sleeps in between, so that a
/// busy machine does not make it late; an ordinary one while it has no rest, so that it starves nobody.
#[derive(Debug)]
struct Rank {
    /// Whether the machine lets us go before others at all.
    allowed: bool,
    immediate: bool,
    since_ns: u64,
    rested_ns: u64,
}

impl Rank {
    fn new() -> Self {
        let allowed = sys::schedule(Urgency::Immediate).is_ok();
        let now = sys::monotonic_ns();
        let mut rank = Self { allowed, immediate: allowed, since_ns: now, rested_ns: now };
        if !allowed {
            rank.step_back(now);
        }
        rank
    }

    fn step_back(&mut self, now: u64) {
        (self.immediate, self.since_ns) = (false, now);
        if sys::schedule(Urgency::Raised).is_err() {
            // Kernels before 6.12 know no slices for ordinary threads; nothing is lost then.
            let _ = sys::schedule(Urgency::Plain);
        }
    }

    /// The worker has just woken; only from here on does it have no rest.
    fn slept(&mut self, now: u64) {
        self.rested_ns = now;
        if self.allowed && !self.immediate && now - self.since_ns > RANK_NS {
            self.immediate = sys::schedule(Urgency::Immediate).is_ok();
        }
    }

    fn worked(&mut self, now: u64) {
        if self.immediate && now.saturating_sub(self.rested_ns) > RANK_NS {
            self.step_back(now);
        }
    }
}

/// One worker thread.
struct Loop {
    links: Vec<Served>,
    inbox: Receiver<Request>,
    bell: UnixStream,
    spin_ns: u64,
    gather_ns: u64,
    batch: Batch,
    frames: Vec<Slot>,
    figures: Figures,
}

/// How the worker itself is doing.
#[derive(Debug, Default)]
struct Figures {
    passes: u64,
    sleeps: u64,
    overruns: u64,
    max_pass_ns: u64,
    max_overslept_ns: u64,
}

impl Loop {
    fn new(links: Vec<Served>, inbox: Receiver<Request>, bell: UnixStream, config: &Config) -> Self {
        Self {
            links,
            inbox,
            bell,
            spin_ns: config.spin_ns,
            gather_ns: config.gather_ns,
            batch: Batch::new(config.io_uring),
            frames: Vec::with_capacity(BATCH),
            figures: Figures::default(),
        }
    }

    fn run(mut self) -> Result<(), WireError> {
        sys::precise_timers();
        let mut rank = Rank::new();
        let mut waiting = Waiting::default();
        let bell = waiting.add(self.bell.as_raw_fd());
        let places: Vec<[usize; 2]> = self
            .links
            .iter()
            .map(|link| [0, 1].map(|side: usize| waiting.add(link.ports[side].descriptor())))
            .collect();
        // With one link a failed read is cheaper than asking which port is ready.
        let read_blindly = self.links.len() == 1;
        let mut timer = Waiting::default();
        let mut busy = false;
        let mut stream = Stream::default();
        loop {
            let now = sys::monotonic_ns();
            if self.gather_ns > 0 && stream.flows_thinly(now) {
                // What falls due meanwhile leaves a little late, and together.
                timer.wait(Some(self.gather_ns)).attempting(|| "wait for a timer".into())?;
                rank.slept(now);
                busy = true;
            }
            if !(busy && read_blindly) {
                let asked = if busy { Some(0) } else { self.pause() };
                let before = sys::monotonic_ns();
                waiting.wait(asked).attempting(|| "wait for frames".into())?;
                if asked != Some(0) {
                    let woken = sys::monotonic_ns();
                    rank.slept(woken);
                    if let Some(ns) = asked {
                        self.figures.sleeps += 1;
                        let overslept = woken.saturating_sub(before + ns);
                        self.figures.max_overslept_ns = self.figures.max_overslept_ns.max(overslept);
                    }
                }
                if waiting.ready(bell) && self.answer() {
                    return Ok(());
                }
            }
            let blindly = busy && read_blindly;
            let began = sys::monotonic_ns();
            busy = false;
            let mut moved = 0;
            for (link, places) in self.links.iter_mut().zip(&places) {
                for side in 0..2 {
                    if blindly || waiting.ready(places[side]) {
                        let came =
                            link.receive(side, &mut self.batch, &mut self.frames).attempting(|| {
                                format!("read from port {} of link '{}'", ["a", "b"][side], link.name)
                            })?;
                        busy |= came > 0;
                        moved += came;
                    }
                }
                link.keep_schedule(began);
                for way in 0..2 {
                    let left = link
                        .send(way, &mut self.batch)
                        .attempting(|| format!("send on port {} of link '{}'", ["b", "a"][way], link.name))?;
                    busy |= left == TURN;
                    moved += left;
                }
                if let Some(journal) = &mut link.notes.0 {
                    journal.tick(began);
                }
            }
            rank.worked(began);
            stream.note(began, moved);
            self.figures.passes += 1;
            // The bell must be heard even by a worker that never sleeps.
            if busy && read_blindly && self.figures.passes % 256 == 0 && self.answer() {
                return Ok(());
            }
            let took = sys::monotonic_ns() - began;
            self.figures.max_pass_ns = self.figures.max_pass_ns.max(took);
            self.figures.overruns += u64::from(took > OVERRUN_NS);
        }
    }

    /// How long to sleep: until a little before the next due time, not at all when it is near.
    fn pause(&self) -> Option<u64> {
        let now = sys::monotonic_ns();
        let next = self.links.iter().filter_map(|link| link.next(now)).min();
        next.map(|at| at.saturating_sub(now).saturating_sub(self.spin_ns).min(LONGEST_SLEEP_NS))
    }

    /// Answer what the control thread asks; true when it asked to quit.
    fn answer(&mut self) -> bool {
        let mut rung = [0; 64];
        while self.bell.read(&mut rung).is_ok_and(|n| n > 0) {}
        while let Ok(request) = self.inbox.try_recv() {
            let now = sys::monotonic_ns();
            match request {
                Request::Stats(reply) => {
                    let _ = reply.send(self.stats());
                }
                Request::Script(place, script, origin) => {
                    let link = &mut self.links[place];
                    (link.script, link.origin) = (script, origin);
                    link.keep_schedule(now);
                }
                Request::Flush(reply) => {
                    self.links.iter_mut().filter_map(|l| l.notes.0.as_mut()).for_each(|j| j.flush(now));
                    let _ = reply.send(());
                }
                Request::Quit(reply) => {
                    self.links.iter_mut().for_each(|link| link.close(now));
                    let _ = reply.send(self.stats());
                    return true;
                }
            }
        }
        false
    }

    fn stats(&mut self) -> Report {
        let links: BTreeMap<String, Value> =
            self.links.iter_mut().map(|link| (link.name.clone(), link.stats())).collect();
        // Time on a processor, time waiting for one (`/proc/PID/schedstat`, proc(5)).
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut times = text.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let thread = json!({
            "cpu_ns": times.next(), "run_delay_ns": times.next(), "io_uring": self.batch.has_ring(),
            "passes": self.figures.passes, "sleeps": self.figures.sleeps, "overruns": self.figures.overruns,
            "max_pass_ns": self.figures.max_pass_ns, "max_overslept_ns": self.figures.max_overslept_ns,
        });
        (thread, links.into_iter().collect())
    }
}

/// Verdicts are counted by number in the statistics; keep the two in step.
const _: () = assert!(Verdict::ALL.len() == 8);
