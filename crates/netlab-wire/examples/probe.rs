//! Numbered, time-stamped datagrams for the benches: what a link did to them, seen from outside.
//!
//! `probe receive PORT IDLE_MS` counts until nothing has come for that long and prints JSON;
//! `probe send ADDRESS:PORT COUNT GAP_NS OCTETS` sends, as fast as it can when the gap is 0.

use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", port, idle] => receive(port.parse()?, Duration::from_millis(idle.parse()?)),
        ["send", to, count, gap, octets] => send(to, count.parse()?, gap.parse()?, octets.parse()?),
        _ => Err("usage: probe receive PORT IDLE_MS | probe send ADDRESS:PORT COUNT GAP_NS OCTETS".into()),
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
            "mean_ms": mean, "sd_ms": spread, "min_ms": quantile(0.0), "p50_ms": quantile(0.5),
            "p99_ms": quantile(0.99), "max_ms": quantile(1.0)})
    );
    Ok(())
}
