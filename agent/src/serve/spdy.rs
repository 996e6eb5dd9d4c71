//! SPDY/3.1 as far as Kubernetes uses it: many two-way streams over one connection, each half of which ends by itself.
//! Serves both ends: towards clients (port-forward) and towards the runtime (exec, attach). It must not know what the
//! streams carry.
//!
//! There is no flow control, because the implementation at the other end (in every Kubernetes client and runtime) has
//! none: a stream whose data nobody takes holds up the connection, and with it the sender.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};

use self::frame::{Decoder, Encoder, Frame, FrameError};
pub(crate) use self::headers::Headers;

mod frame;
mod headers;

/// Frames waiting to be written, over all streams.
const OUTGOING: usize = 16;
/// Data frames waiting to be taken, per stream.
const INCOMING: usize = 8;
/// Streams a peer may have open.
const MAX_STREAMS: usize = 1024;
/// Longest data frame we write.
const MAX_DATA: usize = 32 * 1024;

const RST_PROTOCOL_ERROR: u32 = 1;
const RST_REFUSED: u32 = 3;
const RST_CANCEL: u32 = 5;

/// Which end of the connection we are; it decides the numbers of the streams we open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// We called.
    Client,
    /// We were called.
    Server,
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The other end does not keep to the protocol, or the connection broke.
    #[error("SPDY connection: {0}")]
    Broken(String),
    /// The connection is gone.
    #[error("SPDY connection is closed")]
    Closed,
    /// More streams than we keep.
    #[error("SPDY connection has more than {MAX_STREAMS} streams")]
    TooManyStreams,
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::Broken(error.to_string())
    }
}

enum Command {
    Send(Frame),
    Open {
        headers: Headers,
        incoming: mpsc::Sender<Bytes>,
        id: tokio::sync::oneshot::Sender<u32>,
    },
    /// Our handle of this stream is gone.
    Forget {
        id: u32,
    },
}

/// Opens streams. Cheap to clone.
#[derive(Clone)]
pub(super) struct Opener {
    commands: mpsc::Sender<Command>,
}

/// The streams that the other end opens.
pub(super) struct Incoming {
    streams: mpsc::Receiver<(Headers, Stream)>,
    /// Keeps the connection while somebody waits for streams.
    _commands: mpsc::Sender<Command>,
}

/// A stream: what arrives, and the way back.
pub(super) struct Stream {
    pub(super) reader: StreamReader,
    pub(super) writer: StreamWriter,
}

/// The half that arrives.
pub(super) struct StreamReader {
    data: mpsc::Receiver<Bytes>,
}

/// The half that goes out. Dropped without [`StreamWriter::finish`] it ends the stream by error.
pub(super) struct StreamWriter {
    id: u32,
    commands: mpsc::Sender<Command>,
    finished: bool,
}

/// A connection over `io`. The future is the connection: it must be polled for anything to move. It ends when the other
/// end does, or when every handle of ours is gone.
pub(super) fn connection<T: AsyncRead + AsyncWrite + Send>(
    io: T,
    role: Role,
) -> (Opener, Incoming, impl Future<Output = Result<(), Error>> + Send) {
    let (commands, queue) = mpsc::channel(OUTGOING);
    let (accepted, streams) = mpsc::channel(16);
    let (read, write) = tokio::io::split(io);
    let table = Arc::new(Table::default());
    let input = Input {
        commands: commands.downgrade(),
        accepted: Some(accepted),
        table: table.clone(),
        last: 0,
        role,
    };
    let output = Output { queue, table, next_id: if role == Role::Client { 1 } else { 2 } };
    // Two loops, so that a peer that does not read does not keep us from reading.
    let connection = async move {
        tokio::select! {
            ended = output.run(write) => ended,
            ended = input.run(read) => ended,
        }
    };
    (Opener { commands: commands.clone() }, Incoming { streams, _commands: commands }, connection)
}

/// Where the data of each open stream goes; `None` after the other end's half has ended.
type Table = Mutex<HashMap<u32, Option<mpsc::Sender<Bytes>>>>;

/// Writes what the handles want written.
struct Output {
    queue: mpsc::Receiver<Command>,
    table: Arc<Table>,
    next_id: u32,
}

impl Output {
    async fn run(mut self, write: impl AsyncWrite + Send) -> Result<(), Error> {
        let mut sink = std::pin::pin!(FramedWrite::new(write, Encoder::new()));
        while let Some(command) = self.queue.recv().await {
            let mut next = Some(command);
            // What else is queued goes out with the same write.
            while let Some(command) = next {
                if let Some(frame) = self.frame(command) {
                    sink.feed(frame).await?;
                }
                next = self.queue.try_recv().ok();
            }
            sink.flush().await?;
        }
        // A goodbye that the other end need not hear: it may be gone.
        let _ = sink.send(Frame::GoAway { last: 0, status: 0 }).await;
        let _ = sink.close().await;
        Ok(())
    }

    fn frame(&mut self, command: Command) -> Option<Frame> {
        match command {
            Command::Send(frame) => Some(frame),
            Command::Open { headers, incoming, id: answer } => {
                let id = self.next_id;
                self.next_id += 2;
                self.table.lock().insert(id, Some(incoming));
                if answer.send(id).is_err() {
                    self.table.lock().remove(&id);
                    return None;
                }
                Some(Frame::SynStream { id, fin: false, headers })
            }
            Command::Forget { id } => {
                let mut table = self.table.lock();
                if table.get(&id).is_some_and(Option::is_none) {
                    table.remove(&id);
                }
                None
            }
        }
    }
}

/// Reads, and hands out what arrives.
struct Input {
    /// Weak, so that the queue ends when every handle is gone.
    commands: mpsc::WeakSender<Command>,
    accepted: Option<mpsc::Sender<(Headers, Stream)>>,
    table: Arc<Table>,
    last: u32,
    role: Role,
}

impl Drop for Input {
    fn drop(&mut self) {
        // Readers see the end.
        self.table.lock().clear();
    }
}

impl Input {
    async fn run(mut self, read: impl AsyncRead + Send) -> Result<(), Error> {
        let mut source = std::pin::pin!(FramedRead::with_capacity(read, Decoder::new(), 16 * 1024));
        while let Some(frame) = source.next().await {
            match frame? {
                Frame::SynStream { id, fin, headers } => self.accept(id, fin, headers).await?,
                Frame::Data { id, fin, payload } => {
                    let stream = self.table.lock().get(&id).cloned().flatten();
                    if let Some(stream) = stream.filter(|_| !payload.is_empty()) {
                        // Fails when our reader is gone: then nobody wants it.
                        let _ = stream.send(payload).await;
                    }
                    self.end_if(fin, id);
                }
                Frame::SynReply { id, fin, .. } | Frame::Headers { id, fin } => self.end_if(fin, id),
                Frame::Rst { id, .. } => {
                    self.table.lock().remove(&id);
                }
                // A ping of ours would come back; we send none, so each is theirs.
                Frame::Ping { id } => self.answer(Frame::Ping { id }).await,
                Frame::GoAway { .. } => self.accepted = None,
                Frame::Other { kind } => tracing::trace!(kind, "SPDY frame without meaning here"),
            }
        }
        Ok(())
    }

    /// Without a handle of ours the connection is ending: then nobody needs an answer.
    async fn answer(&self, frame: Frame) {
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.send(Command::Send(frame)).await;
        }
    }

    fn end_if(&self, fin: bool, id: u32) {
        if fin && let Some(stream) = self.table.lock().get_mut(&id) {
            *stream = None;
        }
    }

    async fn accept(&mut self, id: u32, fin: bool, headers: Headers) -> Result<(), Error> {
        let theirs = (id % 2 == 1) == (self.role == Role::Server);
        if !theirs || id <= self.last {
            self.answer(Frame::Rst { id, status: RST_PROTOCOL_ERROR }).await;
            return Ok(());
        }
        self.last = id;
        if self.table.lock().len() >= MAX_STREAMS {
            return Err(Error::TooManyStreams);
        }
        let (Some(accepted), Some(commands)) = (&self.accepted, self.commands.upgrade()) else {
            self.answer(Frame::Rst { id, status: RST_REFUSED }).await;
            return Ok(());
        };
        let (sender, data) = mpsc::channel(INCOMING);
        self.table.lock().insert(id, (!fin).then_some(sender));
        self.answer(Frame::SynReply { id, fin: false, headers: Headers::new() }).await;
        let writer = StreamWriter { id, commands, finished: false };
        // Without anybody to accept it the stream is dropped, which resets it.
        let _ = accepted.send((headers, Stream { reader: StreamReader { data }, writer })).await;
        Ok(())
    }
}

impl Opener {
    /// Opens a stream.
    pub(super) async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let (incoming, data) = mpsc::channel(INCOMING);
        let (id, answer) = tokio::sync::oneshot::channel();
        self.commands.send(Command::Open { headers, incoming, id }).await.map_err(|_| Error::Closed)?;
        let id = answer.await.map_err(|_| Error::Closed)?;
        let writer = StreamWriter { id, commands: self.commands.clone(), finished: false };
        Ok(Stream { reader: StreamReader { data }, writer })
    }
}

impl Incoming {
    /// The next stream the other end opens; `None` when there will be no more.
    pub(super) async fn accept(&mut self) -> Option<(Headers, Stream)> {
        self.streams.recv().await
    }
}

impl StreamReader {
    /// The next data; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.data.recv().await
    }

    /// Data that has arrived already.
    pub(super) fn next_now(&mut self) -> Option<Bytes> {
        self.data.try_recv().ok()
    }
}

impl StreamWriter {
    /// Sends data.
    pub(super) async fn write(&mut self, mut data: Bytes) -> Result<(), Error> {
        while !data.is_empty() {
            let payload = data.split_to(data.len().min(MAX_DATA));
            self.send(Frame::Data { id: self.id, fin: false, payload }).await?;
        }
        Ok(())
    }

    /// Ends this half well.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.send(Frame::Data { id: self.id, fin: true, payload: Bytes::new() }).await?;
        // If there is no room the entry stays until the connection ends: a few bytes.
        let _ = self.commands.try_send(Command::Forget { id: self.id });
        Ok(())
    }

    async fn send(&self, frame: Frame) -> Result<(), Error> {
        self.commands.send(Command::Send(frame)).await.map_err(|_| Error::Closed)
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.commands.try_send(Command::Send(Frame::Rst { id: self.id, status: RST_CANCEL }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Headers {
        Headers::from([("streamtype".to_owned(), kind.to_owned())])
    }

    /// Both ends over a pipe; `use_them` gets the client's opener and the server's incoming streams.
    async fn pair<F: Future<Output = ()>>(use_them: impl FnOnce(Opener, Incoming) -> F) {
        let (client, server) = tokio::io::duplex(4096);
        let (opener, _, client) = connection(client, Role::Client);
        let (_, incoming, server) = connection(server, Role::Server);
        let ends = async {
            let (client, _server) = tokio::join!(client, server);
            client.expect("client ends well");
        };
        tokio::join!(use_them(opener, incoming), ends);
    }

    #[tokio::test]
    async fn halves_end_apart() {
        pair(|opener, mut incoming| async move {
            let mut ours = opener.open(headers("data")).await.expect("opens");
            let (got, mut theirs) = incoming.accept().await.expect("accepts");
            assert_eq!(got, headers("data"));
            ours.writer.write(Bytes::from_static(b"question")).await.expect("writes");
            ours.writer.finish().await.expect("finishes");
            assert_eq!(theirs.reader.next().await, Some(Bytes::from_static(b"question")));
            assert_eq!(theirs.reader.next().await, None);
            theirs.writer.write(Bytes::from_static(b"answer")).await.expect("writes");
            theirs.writer.finish().await.expect("finishes");
            assert_eq!(ours.reader.next().await, Some(Bytes::from_static(b"answer")));
            assert_eq!(ours.reader.next().await, None);
        })
        .await;
    }

    #[tokio::test]
    async fn much_data_on_several_streams() {
        pair(|opener, mut incoming| async move {
            let sender = async {
                let mut streams = Vec::new();
                for n in 0..3_u8 {
                    streams.push((n, opener.open(headers("data")).await.expect("opens")));
                }
                for _ in 0..20 {
                    for (n, stream) in &mut streams {
                        stream.writer.write(Bytes::from(vec![*n; 50_000])).await.expect("writes");
                    }
                }
                for (_, stream) in &mut streams {
                    stream.writer.finish().await.expect("finishes");
                }
                streams
            };
            let receiver = async {
                let mut totals = Vec::new();
                let mut readers = futures::stream::FuturesUnordered::new();
                for n in 0..3_u8 {
                    let (_, stream) = incoming.accept().await.expect("accepts");
                    readers.push(async move {
                        let Stream { mut reader, mut writer } = stream;
                        let mut total = 0;
                        while let Some(data) = reader.next().await {
                            assert!(data.iter().all(|byte| *byte == n), "stream {n} has its own data");
                            total += data.len();
                        }
                        writer.finish().await.expect("finishes");
                        total
                    });
                }
                while let Some(total) = readers.next().await {
                    totals.push(total);
                }
                totals
            };
            let (_streams, totals) = tokio::join!(sender, receiver);
            assert_eq!(totals, [1_000_000; 3]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_ends_the_stream() {
        pair(|opener, mut incoming| async move {
            let ours = opener.open(headers("data")).await.expect("opens");
            let (_, mut theirs) = incoming.accept().await.expect("accepts");
            drop(ours);
            assert_eq!(theirs.reader.next().await, None);
        })
        .await;
    }

    #[tokio::test]
    async fn a_lost_connection_ends_every_stream() {
        let (client, server) = tokio::io::duplex(4096);
        let (opener, _incoming, connection) = connection(client, Role::Client);
        let driver = tokio::spawn(connection);
        let mut stream = opener.open(headers("data")).await.expect("opens");
        drop(server);
        assert_eq!(stream.reader.next().await, None);
        let _ = driver.await.expect("not panicked");
        assert!(matches!(stream.writer.write(Bytes::from_static(b"x")).await, Err(Error::Closed)));
        assert!(opener.open(headers("data")).await.is_err());
    }
}
