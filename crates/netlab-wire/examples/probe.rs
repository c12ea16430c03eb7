//! Numbered, time-stamped datagrams for the benches: what a link did to them, seen from outside.
//!
//! `probe receive PORT IDLE_MS` counts until nothing has come for that long and prints JSON;
//! `probe send ADDRESS:PORT COUNT GAP_NS OCTETS` sends; `probe flood` in place of `send` as fast as it can.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", port, idle] => receive(port.parse()?, Duration::from_millis(idle.parse()?)),
        ["send", to, count, gap, octets] => send(to, count.parse()?, gap.parse()?, octets.parse()?),
        ["flood", to, count, octets] => flood(to, count.parse()?, octets.parse()?),
        _ => {
            let ways = "receive PORT IDLE_MS | send ADDRESS:PORT COUNT GAP_NS OCTETS | flood ADDRESS:PORT COUNT OCTETS";
            Err(format!("usage: probe {ways}").into())
        }
    }
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64)
}

fn send(to: &str, count: u64, gap: u64, octets: usize) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let mut datagram = vec![0; octets.max(16)];
    let start = Instant::now();
    let mut refused = 0u64;
    for i in 0..count {
        let due = Duration::from_nanos(i * gap);
        while gap > 0 && start.elapsed() < due {
            let left = due.saturating_sub(start.elapsed());
            if left > Duration::from_micros(150) {
                std::thread::sleep(left - Duration::from_micros(80));
            } else {
                std::hint::spin_loop();
            }
        }
        datagram[..8].copy_from_slice(&i.to_le_bytes());
        datagram[8..16].copy_from_slice(&now()?.to_le_bytes());
        refused += u64::from(socket.send(&datagram).is_err());
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({"sent": count, "refused": refused, "per_second": rate}));
    Ok(())
}

/// Datagrams of one call of `flood`.
const SEGMENTS: u64 = 64;

/// Many datagrams in each call, which the kernel takes apart (`udp(7)`, UDP_SEGMENT): a sender that
/// pays a call for each is slower than the wire.
fn flood(to: &str, count: u64, octets: usize) -> Result<()> {
    let octets = octets.max(16);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let size = octets as libc::c_int;
    let (pointer, length) = (std::ptr::from_ref(&size).cast(), size_of_val(&size) as libc::socklen_t);
    // SAFETY: the pointer is to a live c_int of the length given.
    if unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, pointer, length) } < 0
    {
        return Err(std::io::Error::last_os_error().into());
    }
    let mut datagrams = vec![0; octets * SEGMENTS as usize];
    let (mut refused, start) = (0u64, Instant::now());
    for first in (0..count).step_by(SEGMENTS as usize) {
        let last = count.min(first + SEGMENTS);
        let sent = now()?.to_le_bytes();
        for (number, datagram) in (first..last).zip(datagrams.chunks_exact_mut(octets)) {
            datagram[..8].copy_from_slice(&number.to_le_bytes());
            datagram[8..16].copy_from_slice(&sent);
        }
        let all = &datagrams[..octets * (last - first) as usize];
        refused += if socket.send(all).is_err() { last - first } else { 0 };
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({"sent": count, "refused": refused, "per_second": rate}));
    Ok(())
}

fn receive(port: u16, idle: Duration) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    println!("{{\"ready\":true}}");
    let mut datagram = [0; 2048];
    let (mut seen, mut delays) = (Vec::<bool>::new(), Vec::<f64>::new());
    let (mut copies, mut overtaken, mut highest) = (0u64, 0u64, 0usize);
    loop {
        match socket.recv(&mut datagram) {
            Ok(n) if n >= 16 => {}
            Ok(_) => continue,
            Err(_) if delays.is_empty() => continue,
            Err(_) => break,
        }
        if delays.is_empty() {
            socket.set_read_timeout(Some(idle))?;
        }
        let number = u64::from_le_bytes(datagram[..8].try_into()?) as usize;
        let sent = u64::from_le_bytes(datagram[8..16].try_into()?);
        delays.push(now()?.saturating_sub(sent) as f64 / 1e6);
        if seen.len() <= number {
            seen.resize(number + 1, false);
        }
        if std::mem::replace(&mut seen[number], true) {
            copies += 1;
        } else {
            overtaken += u64::from(number < highest);
            highest = highest.max(number);
        }
    }
    let unique = seen.iter().filter(|&&seen| seen).count();
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    let spread = (delays.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / delays.len() as f64).sqrt();
    delays.sort_by(f64::total_cmp);
    let quantile = |q: f64| delays[((delays.len() - 1) as f64 * q) as usize];
    println!(
        "{}",
        serde_json::json!({"received": delays.len(), "unique": unique, "copies": copies, "overtaken": overtaken,
            "mean_ms": mean, "sd_ms": spread, "min_ms": quantile(0.0), "p25_ms": quantile(0.25),
            "p50_ms": quantile(0.5), "p75_ms": quantile(0.75), "p99_ms": quantile(0.99), "max_ms": quantile(1.0)})
    );
    Ok(())
}
