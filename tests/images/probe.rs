//! The client of the demo and the tests. Static, no dependencies.
//!
//!     probe get ADDRESS PORT [PATH]     one HTTP request; prints the body
//!     probe refusal ADDRESS PORT        connects and prints how that failed, after how many ms; fails if it does not
//!     probe ready PORT ADDRESS...       exit code 0 if every address answers
//!     probe spread N ADDRESS PORT       N requests, each on a connection of its own; prints how often each server answered
//!     probe udp ADDRESS PORT TEXT       one datagram; prints the answer
//!     probe udp-to ADDRESS PORT TEXT    the same on an unconnected socket; also prints who answered
//!     probe hold ADDRESS PORT SECONDS   one connection, a request each 100 ms; fails if it breaks
//!     probe load KIND ADDRESS PORT US   questions without an end, US microseconds apart, until the end of its input; prints `begun`
//!                                       after the first, and at the end what it counted (tests/src/load/client.rs)

#[path = "../src/load/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(3);

type Answer = Result<String, String>;

fn address(ip: &str, port: &str) -> Result<SocketAddr, String> {
    let ip: IpAddr = ip.parse().map_err(|_| format!("{ip:?} is not an IP address"))?;
    let port: u16 = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
    Ok(SocketAddr::new(ip, port))
}

fn get(to: SocketAddr, path: &str) -> Answer {
    let fail = |error: std::io::Error| format!("{to}: {error}");
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).map_err(fail)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(fail)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").map_err(fail)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(fail)?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or_else(|| format!("{to}: not an HTTP answer: {text:?}"))
}

fn refusal(to: SocketAddr) -> Answer {
    let start = Instant::now();
    match TcpStream::connect_timeout(&to, LIMIT) {
        Ok(_) => Err(format!("{to}: connected")),
        Err(error) => Ok(format!("{:.1} ms: {error}\n", start.elapsed().as_secs_f64() * 1000.0)),
    }
}

fn spread(count: &str, to: SocketAddr) -> Answer {
    let count: u32 = count.parse().map_err(|_| format!("{count:?} is not a number"))?;
    let mut servers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..count {
        let body = get(to, "/")?;
        *servers.entry(body.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(servers.iter().map(|(server, n)| format!("{n} {server}\n")).collect())
}

fn udp(to: SocketAddr, text: &str, connected: bool) -> Answer {
    let fail = |error: std::io::Error| format!("{to}: {error}");
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).map_err(fail)?;
    socket.set_read_timeout(Some(LIMIT)).map_err(fail)?;
    let mut buffer = [0; 2048];
    if connected {
        socket.connect(to).map_err(fail)?;
        socket.send(text.as_bytes()).map_err(fail)?;
        let length = socket.recv(&mut buffer).map_err(fail)?;
        return Ok(format!("{}\n", String::from_utf8_lossy(&buffer[..length])));
    }
    socket.send_to(text.as_bytes(), to).map_err(fail)?;
    let (length, from) = socket.recv_from(&mut buffer).map_err(fail)?;
    Ok(format!("{} from {from}\n", String::from_utf8_lossy(&buffer[..length])))
}

fn hold(to: SocketAddr, seconds: &str) -> Answer {
    let fail = |error: std::io::Error| format!("{to}: {error}");
    let seconds: u64 = seconds.parse().map_err(|_| format!("{seconds:?} is not a number"))?;
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).map_err(fail)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(fail)?;
    let mut reader = BufReader::new(stream.try_clone().map_err(fail)?);
    let (start, mut answers) = (Instant::now(), 0u32);
    while start.elapsed() < Duration::from_secs(seconds) {
        write!(stream, "GET / HTTP/1.1\r\nHost: {to}\r\n\r\n").map_err(fail)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).map_err(fail)? == 0 {
                return Err(format!("{to}: the connection ended after {answers} answers"));
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).map_err(fail)?;
        answers += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(format!("{answers} answers on one connection\n"))
}

fn load(kind: &str, to: SocketAddr, pause: &str) -> Answer {
    let kind = client::Kind::parse(kind).ok_or_else(|| format!("{kind:?} is no kind of load"))?;
    let pause: u64 = pause.parse().map_err(|_| format!("{pause:?} is not a number"))?;
    let control = client::Control::default();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| client::run(kind, to, Duration::from_micros(pause), &control));
        while control.asked.load(Ordering::Relaxed) == 0 && !running.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("begun");
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        control.stop.store(true, Ordering::Relaxed);
        ended.map_err(|error| format!("standard input: {error}"))?;
        running.join().map(|counts| counts.line()).map_err(|_| "the client panicked".to_owned())
    })
}

fn run(words: &[&str]) -> Answer {
    match words {
        ["get", ip, port] => get(address(ip, port)?, "/"),
        ["get", ip, port, path] => get(address(ip, port)?, path),
        ["refusal", ip, port] => refusal(address(ip, port)?),
        ["ready", port, ips @ ..] => ips.iter().map(|ip| get(address(ip, port)?, "/ready")).collect(),
        ["spread", count, ip, port] => spread(count, address(ip, port)?),
        ["udp", ip, port, text] => udp(address(ip, port)?, text, true),
        ["udp-to", ip, port, text] => udp(address(ip, port)?, text, false),
        ["hold", ip, port, seconds] => hold(address(ip, port)?, seconds),
        ["load", kind, ip, port, pause] => load(kind, address(ip, port)?, pause),
        _ => Err("usage: probe get|refusal|ready|spread|udp|udp-to|hold|load ...".to_owned()),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(text) => print!("{text}"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
