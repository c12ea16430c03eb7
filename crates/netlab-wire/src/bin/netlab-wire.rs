//! `netlab-wire CONFIG.json`: run a wire with its control channel on standard input and output.
//!
//! The configuration may also be `-`, and then is the first line of standard input. With
//! `--control FD` the channel is that descriptor. Exit status: 0 after `quit`, 2 for a configuration that is
//! refused, 1 for anything else.

use std::io::{BufRead, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => standard(path),
        [path, "--control", descriptor] => match descriptor.parse() {
            Ok(descriptor) => read(path).and_then(|text| netlab_wire::run(&text, descriptor).map(drop)),
            Err(_) => Err(netlab_wire::WireError::Config(format!("--control {descriptor}: not a number"))),
        },
        _ => {
            eprintln!("usage: netlab-wire CONFIG.json|- [--control FD]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netlab-wire: {error}");
            ExitCode::from(if error.kind() == "config" { 2 } else { 1 })
        }
    }
}

fn read(path: &str) -> Result<String, netlab_wire::WireError> {
    let text = if path == "-" {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|error| netlab_wire::WireError::System(format!("read {path}"), error))
}

/// Join standard input and output to a socket pair: the library wants one descriptor for both ways.
fn standard(path: &str) -> Result<(), netlab_wire::WireError> {
    let text = read(path)?;
    let pipe = |error| netlab_wire::WireError::System("make a socket pair".into(), error);
    let (ours, theirs) = UnixStream::pair().map_err(pipe)?;
    let mut to_wire = ours.try_clone().map_err(pipe)?;
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if to_wire.write_all(format!("{line}\n").as_bytes()).is_err() {
                return;
            }
        }
        // End of input is the other side going away.
        let _ = to_wire.shutdown(std::net::Shutdown::Write);
    });
    let printer = std::thread::spawn(move || {
        for line in std::io::BufReader::new(ours).lines().map_while(Result::ok) {
            println!("{line}");
        }
    });
    let result = netlab_wire::run(&text, theirs.as_raw_fd());
    drop(theirs);
    let _ = printer.join();
    result.map(drop)
}
