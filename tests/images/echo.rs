//! The echo server of the demo and the tests: says which pod answered, over HTTP and UDP, IPv4 and IPv6. Static, no dependencies.
//!
//! `echo [PORT]` (8080): every HTTP request is answered with `hostname client-address path`, every datagram with the hostname and
//! what it said. SIGTERM ends it at once.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn _exit(code: i32) -> !;
}

extern "C" fn end(_: i32) {
    // SAFETY: _exit(2) may be called in a signal handler (signal-safety(7)).
    unsafe { _exit(0) }
}

fn main() {
    // As the first process of its pid namespace it would not be ended by a signal that it does not handle (pid_namespaces(7)).
    // SAFETY: the handler only exits; 15 is SIGTERM.
    unsafe { signal(15, end as *const () as usize) };
    let port = std::env::args().nth(1).and_then(|p| p.parse().ok()).unwrap_or(8080u16);
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    // [::] takes IPv4 as well (ipv6(7), bindv6only); a pod without IPv6 has 0.0.0.0 alone.
    let tcp = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let udp = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)));
    let (tcp, udp) = match (tcp, udp) {
        (Ok(tcp), Ok(udp)) => (tcp, udp),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("cannot listen on port {port}: {error}");
            std::process::exit(1);
        }
    };
    println!("{name} listens on port {port}");
    let udp_name = name.clone();
    std::thread::spawn(move || datagrams(&udp, &udp_name));
    for stream in tcp.incoming().flatten() {
        let name = name.clone();
        std::thread::spawn(move || {
            let _ = serve(stream, &name);
        });
    }
}

fn datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let answer = format!("{name} {}", String::from_utf8_lossy(&buffer[..length]));
        let _ = socket.send_to(answer.as_bytes(), from);
    }
}

fn serve(stream: TcpStream, name: &str) -> std::io::Result<()> {
    let client = stream.peer_addr()?.ip().to_canonical();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut close = request.contains("HTTP/1.0");
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
            close |= header.to_ascii_lowercase().starts_with("connection: close");
            if header.trim().is_empty() {
                break;
            }
        }
        let body = format!("{name} {client} {path}\n");
        println!("{client} {path}");
        let connection = if close { "close" } else { "keep-alive" };
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}", body.len())?;
        if close {
            return Ok(());
        }
    }
}
