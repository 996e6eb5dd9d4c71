//! What becomes of questions while an agent ends and the next one starts.
//!
//! Must not know: how sockets are handed over.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use pagurus_tests::eventually::eventually;

use super::{
    Server, TIMEOUT, Upstream, WEB, ask, ask_tcp, ask_within, ips, question, server_at, with_namespace,
};

#[test]
fn a_restart_loses_no_question() {
    with_namespace("dns::restart::a_restart_loses_no_question", || {
        let mut server = Server::ready("")?;
        // An agent that is told to end answers what it has taken: no question is asked twice.
        let asking = Asking::start(TIMEOUT);
        for _ in 0..5 {
            asking.go_on()?;
            server.end()?;
            server = Server::start("")?;
        }
        asking.go_on()?;
        let outcome = asking.stop()?;
        ensure!(outcome.repeated == 0, "{outcome:?}");
        ensure!(outcome.longest < Duration::from_secs(1), "{outcome:?}");
        // One that is killed takes at most the question with it that it has in hand; a client asks again.
        let asking = Asking::start(Duration::from_millis(500));
        for _ in 0..5 {
            asking.go_on()?;
            server.kill()?;
            server = Server::start("")?;
        }
        asking.go_on()?;
        let outcome = asking.stop()?;
        ensure!(outcome.repeated <= 5, "{outcome:?}");
        ensure!(outcome.longest < Duration::from_secs(1), "{outcome:?}");
        // A connection that nobody has accepted yet is answered as well.
        server.kill()?;
        let mut stream = TcpStream::connect(server_at())?;
        server = Server::start("")?;
        ask_tcp(&mut stream, &[question(WEB, RecordType::A)])?;
        drop(server);
        Ok(())
    });
}

#[test]
fn questions_on_their_way_to_others_outlive_the_agent() {
    with_namespace("dns::restart::questions_on_their_way_to_others_outlive_the_agent", || {
        let upstream = Upstream::start("127.0.0.2:53")?;
        let mut server = Server::ready("127.0.0.2:53")?;
        let asked = upstream.asked();
        let waiting = thread::spawn(|| ask("www.example.com.", RecordType::A));
        let mut stream = TcpStream::connect(server_at())?;
        let over_tcp =
            thread::spawn(move || ask_tcp(&mut stream, &[question("brief.example.com.", RecordType::A)]));
        eventually("both questions are with the other server", TIMEOUT, || {
            Ok((upstream.asked() >= asked + 2).then_some(()))
        })?;
        server.end()?;
        for answer in [waiting.join().expect("no panic")?, over_tcp.join().expect("no panic")?.remove(0)] {
            ensure!(answer.metadata.response_code == ResponseCode::NoError, "{answer:?}");
        }
        Ok(())
    });
}

/// Somebody who asks one question after another.
struct Asking {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Result<Patience>>,
}

/// What their questions took.
#[derive(Debug, Default)]
struct Patience {
    longest: Duration,
    repeated: usize,
}

impl Asking {
    /// `patience` is how long an answer is waited for before the question is asked again, once.
    fn start(patience: Duration) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, asked) = (stop.clone(), asked.clone());
            move || {
                let mut all = Patience::default();
                while !stop.load(Ordering::SeqCst) {
                    let start = Instant::now();
                    let question = question(WEB, RecordType::A);
                    let answer = ask_within(&question, patience).or_else(|_| {
                        all.repeated += 1;
                        ask_within(&question, patience)
                    })?;
                    ensure!(ips(&answer) == [Ipv4Addr::new(10, 96, 0, 7)], "{answer:?}");
                    all.longest = all.longest.max(start.elapsed());
                    asked.fetch_add(1, Ordering::SeqCst);
                }
                Ok(all)
            }
        });
        Self { stop, asked, thread }
    }

    /// Waits until questions are answered.
    fn go_on(&self) -> Result<()> {
        let before = self.asked.load(Ordering::SeqCst);
        eventually("questions are answered", 2 * TIMEOUT, || {
            Ok((self.asked.load(Ordering::SeqCst) > before + 200 || self.thread.is_finished()).then_some(()))
        })
    }

    fn stop(self) -> Result<Patience> {
        self.stop.store(true, Ordering::SeqCst);
        let outcome = self.thread.join().expect("no panic")?;
        println!("{} questions, {outcome:?}", self.asked.load(Ordering::SeqCst));
        Ok(outcome)
    }
}
