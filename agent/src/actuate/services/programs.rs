//! The programs, beside the maps: verified while lists are read, attached once the maps say what they should, tried again when
//! the kernel refuses them.
//!
//! All are verified before the first link gets another program. Programs of sockets that the kernel refuses leave every link as it is, over
//! maps that go on being written; if it refuses only those of packets, sockets get theirs, and packets stay with the old ones, if there are
//! any. Must not know: what the maps hold.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pagurus_agent_datapath::LoadError;
use pagurus_agent_datapath::devices::{Devices, Early, PacketPrograms};
use pagurus_agent_datapath::programs::Programs;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::told::Told;
use crate::actuate::devices::Attacher;
use crate::config::NodeContext;
use crate::process::readiness::Part;
use crate::report::dataplane::Condition;
use crate::report::events::about_node;

/// Programs that the kernel refused are tried again after this time.
pub(super) const RELOAD: Duration = Duration::from_secs(60);

/// What brings the programs to sockets and devices.
pub(super) struct Attachment {
    pub(super) context: Arc<NodeContext>,
    pub(super) attacher: Attacher,
    pub(super) condition: Condition,
    pub(super) health: Arc<Health>,
    pub(super) part: Part,
    /// The maps say what they should.
    pub(super) written: watch::Receiver<bool>,
}

/// What the verifier said.
struct Verified {
    programs: Programs,
    sockets: Result<(), LoadError>,
    /// Of packets; nothing if those of sockets were refused already.
    packets: Option<Result<PacketPrograms, LoadError>>,
}

impl Attachment {
    /// Has the programs verified and attaches them; then waits to be cancelled.
    pub(super) async fn run(
        mut self,
        programs: oneshot::Receiver<Programs>,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let programs = tokio::select! {
            Ok(programs) = programs => programs,
            () = cancel.cancelled() => return Ok(()),
        };
        // The maps that only programs use are held by them: what they take is shown as long as there is an agent.
        let _programs = tokio::select! {
            outcome = self.bring(programs) => outcome?,
            () = cancel.cancelled() => return Ok(()),
        };
        cancel.cancelled().await;
        Ok(())
    }

    async fn bring(&mut self, mut programs: Programs) -> anyhow::Result<Programs> {
        let mut told = Told::new(self.context.events.clone());
        let mut is_attached = false;
        self.part.not_ready("the kernel is verifying the programs");
        loop {
            let verified = self.verify(programs).await?;
            programs = verified.programs;
            let refusal = match (verified.sockets, verified.packets) {
                (Ok(()), Some(packets)) => {
                    if !is_attached {
                        self.part.not_ready("waiting for the maps of Services");
                        self.written.wait_for(|written| *written).await.context("the balancer ended")?;
                        programs = self.attach_sockets(programs).await?;
                        is_attached = true;
                    }
                    match packets
                        .map_err(anyhow::Error::from)
                        .and_then(|packets| self.install(&programs, packets))
                    {
                        Ok(()) => {
                            told.tell(
                                &about_node(&self.context.node_name),
                                "DataplaneProgramsRefused",
                                Vec::new(),
                            );
                            return Ok(programs);
                        }
                        Err(error) => Refusal {
                            reason: "PacketProgramsRefused",
                            message: format!("only sockets are balanced, packets are not: {error:#}"),
                        },
                    }
                }
                (Err(error), _) if !may_be_granted(&error) => return Err(error.into()),
                (Err(error), _) => {
                    let message = format!("the programs cannot be loaded: {:#}", anyhow::Error::from(error));
                    self.part.not_ready(shortened(&message));
                    self.health.set_refused();
                    Refusal { reason: "ProgramsRefused", message }
                }
                (Ok(()), None) => anyhow::bail!("the packet programs were not looked at"),
            };
            let message = shortened(&refusal.message);
            self.condition.set(false, refusal.reason, message.as_str());
            told.tell(&about_node(&self.context.node_name), "DataplaneProgramsRefused", vec![message]);
            tokio::time::sleep(RELOAD).await;
        }
    }

    /// Has the kernel look at them, on a thread of its own: that takes a second or more.
    async fn verify(&self, mut programs: Programs) -> anyhow::Result<Verified> {
        let early = self.context.config.services.xdp != Early::Off;
        let job = tokio::task::spawn_blocking(move || {
            let sockets = programs.verify_sockets();
            let packets = sockets.is_ok().then(|| programs.packet_programs(early));
            Verified { programs, sockets, packets }
        });
        job.await.context("verify the programs")
    }

    /// Puts the programs into the links of sockets.
    async fn attach_sockets(&self, mut programs: Programs) -> anyhow::Result<Programs> {
        let job = tokio::task::spawn_blocking(move || (programs.attach(), programs));
        let (attached, programs) = job.await.context("attach the socket programs")?;
        let attached = attached.context("attach the socket programs")?;
        tracing::info!(created = attached.created, replaced = attached.replaced, "sockets are balanced");
        self.health.set_attached();
        self.part.ready();
        Ok(programs)
    }

    /// Gives the packet programs to the devices.
    fn install(&self, programs: &Programs, packets: PacketPrograms) -> anyhow::Result<()> {
        let devices = Devices::new(programs.config(), packets, self.context.config.services.xdp)?;
        self.attacher.install(devices);
        self.condition.set(true, "ServingServices", "sockets and packets are balanced");
        Ok(())
    }
}

struct Refusal {
    reason: &'static str,
    message: String,
}

/// Whether trying again may help: what the machine or this binary lacks does not come by waiting.
pub(super) fn may_be_granted(error: &LoadError) -> bool {
    !matches!(error, LoadError::NoObject | LoadError::Missing(_) | LoadError::Lacks(_))
}

/// The verifier's log can be very long; what it says last is why.
pub(super) fn shortened(text: &str) -> String {
    const HEAD: usize = 300;
    const TAIL: usize = 600;
    if text.len() <= HEAD + TAIL {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(HEAD), text.ceil_char_boundary(text.len() - TAIL));
    format!("{} ... {}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again() {
        assert!(!may_be_granted(&LoadError::NoObject));
        assert!(!may_be_granted(&LoadError::Lacks("x")));
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert!(may_be_granted(&LoadError::Cpus { file: "/sys/x", source: gone }));
    }

    #[test]
    fn long_logs_keep_their_ends() {
        assert_eq!(shortened("short"), "short");
        let long = format!("{}END", "x".repeat(5000));
        let text = shortened(&long);
        assert!(text.len() < 1000 && text.ends_with("END") && text.contains(" ... "));
    }
}
