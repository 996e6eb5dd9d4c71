//! What a call of the runtime can answer instead of success. Must not know what the caller wanted to do with it.

use std::path::PathBuf;

/// The result of a call of the runtime.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call of the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is not one that we can connect to.
    #[error("runtime endpoint {0:?} is not a unix socket (want unix:///path or /path)")]
    Endpoint(String),
    /// Nothing answers at the socket.
    #[error("connect to the container runtime at {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the connect said.
        source: tonic::transport::Error,
    },
    /// The runtime answered an error.
    #[error("{operation} {object}: {}", status.message())]
    Call {
        /// Name of the CRI call.
        operation: &'static str,
        /// Sandbox, container or image it was about.
        object: String,
        /// The runtime's answer.
        status: Box<tonic::Status>,
    },
    /// The runtime answered success with a part missing that the contract demands.
    #[error("{operation} {object}: the runtime's answer has no {missing}")]
    Incomplete {
        /// Name of the CRI call.
        operation: &'static str,
        /// Sandbox, container or image it was about.
        object: String,
        /// What is not there.
        missing: &'static str,
    },
}

impl Error {
    /// The gRPC code of the answer, if there was one.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// The object is not there (any more).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(tonic::Code::NotFound)
    }

    /// The runtime does not know this call.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Some(tonic::Code::Unimplemented)
    }

    /// The call ran out of its time.
    pub fn is_deadline(&self) -> bool {
        matches!(self.code(), Some(tonic::Code::DeadlineExceeded | tonic::Code::Cancelled))
    }

    /// The runtime's own words, without the name of the call.
    pub fn runtime_message(&self) -> String {
        match self {
            Self::Call { status, .. } => status.message().to_owned(),
            other => other.to_string(),
        }
    }
}
