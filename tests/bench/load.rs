//! Clients and servers for figures: as little as possible besides the system calls.
//!
//! Must not know: what is between them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use pagurus_tests::topology::Host;

/// Where long connections are served.
pub const LONG: u16 = 8081;
/// Threads that accept, each serving one connection at a time.
const ACCEPTING: usize = 8;

/// A server of short connections: one byte in, one byte out. Lives as long as the process.
///
/// # Errors
/// The address cannot be listened at.
pub fn serve_short(host: &Host, ip: IpAddr, port: u16) -> Result<()> {
    host.run(|| {
        let listener =
            TcpListener::bind((ip, port)).with_context(|| format!("listen at {ip} port {port}"))?;
        for _ in 0..ACCEPTING {
            let listener = listener.try_clone()?;
            thread::spawn(move || {
                let mut byte = [0];
                for mut stream in listener.incoming().flatten() {
                    // A client that goes away early is one that the end of a round cut off.
                    let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
                }
            });
        }
        Ok(())
    })
}

/// A server of long connections: echoes byte by byte. Lives as long as the process.
///
/// # Errors
/// The address cannot be listened at.
pub fn serve_long(host: &Host, ip: IpAddr, port: u16) -> Result<()> {
    host.run(|| {
        let listener =
            TcpListener::bind((ip, port)).with_context(|| format!("listen at {ip} port {port}"))?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut byte = [0];
                    let _ = stream.set_nodelay(true);
                    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
                });
            }
        });
        Ok(())
    })
}

/// Short connections per second: connect, one byte there, one back, closed with a reset so that no port stays behind.
///
/// # Errors
/// A connection failed.
pub fn short_connections(client: &Host, to: SocketAddr, at_once: usize, time: Duration) -> Result<f64> {
    client.run(|| {
        let start = Instant::now();
        let workers: Vec<_> = (0..at_once)
            .map(|_| {
                thread::spawn(move || -> Result<u64> {
                    let mut count = 0;
                    while start.elapsed() < time {
                        one(to).with_context(|| format!("connection {count} to {to}"))?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let mut count = 0;
        for worker in workers {
            count += worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    })
}

fn one(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    setsockopt(&stream.as_fd(), sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    stream.write_all(b"?")?;
    let mut byte = [0];
    stream.read_exact(&mut byte).context("answer")
}

/// Requests per second over so many open connections, one byte there and one back.
///
/// # Errors
/// A connection failed.
pub fn requests(client: &Host, to: SocketAddr, at_once: usize, time: Duration) -> Result<f64> {
    client.run(|| {
        let mut streams = Vec::new();
        for _ in 0..at_once {
            let stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            streams.push(stream);
        }
        let (stop, ready) = (AtomicBool::new(false), Barrier::new(at_once + 1));
        thread::scope(|scope| {
            let workers: Vec<_> = streams
                .into_iter()
                .map(|mut stream| {
                    let (stop, ready) = (&stop, &ready);
                    scope.spawn(move || -> Result<u64> {
                        let (mut count, mut byte) = (0, [0]);
                        ready.wait();
                        while !stop.load(Ordering::Relaxed) {
                            stream.write_all(b"?")?;
                            stream.read_exact(&mut byte).context("answer")?;
                            count += 1;
                        }
                        Ok(count)
                    })
                })
                .collect();
            ready.wait();
            let start = Instant::now();
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            let elapsed = start.elapsed().as_secs_f64();
            let mut count = 0;
            for worker in workers {
                count += worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(count as f64 / elapsed)
        })
    })
}
