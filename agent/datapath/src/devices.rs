//! The packet programs at network devices: one pinned link for each program at each device, whose program is replaced
//! atomically by the next agent.
//!
//! Programs are put behind those of others that are there; ours leave packets that are not their business to the next one.
//! Works in the network namespace of the calling thread. Must not know: which device is what (`agent-core` decides), what the
//! programs do.
//!
//! ```text
//! <bpffs>/pagurus/links/<program>@<ifindex>
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use aya::programs::{ProgramError, ProgramFd, SchedClassifier, Xdp};
use pagurus_agent_core::devices::{Device, DeviceKind};
use pagurus_ebpf_abi::programs;

use crate::pins::{self, PinError, Pins};
use crate::programs::Programs;
use crate::{Config, LoadError, features, sys};

mod link;
#[cfg(any(test, feature = "fake"))]
pub mod passing;

use link::{Hook, XdpMode};

/// tcx came with this release.
const TCX_KERNEL: (u32, u32) = (6, 6);
/// Between the name of a program and the number of its device, in the name of a pin.
const SEPARATOR: char = '@';

/// How packets from outside are taken early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Early {
    /// Not at all.
    #[default]
    Off,
    /// In the drivers that can.
    Auto,
    /// In the driver; one that cannot is an error.
    Native,
    /// Behind the driver.
    Generic,
}

/// Why a program is not at a device as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel has no tcx.
    #[error(
        "kernel {found} is too old for packet programs at devices: they need {}.{} or newer (tcx)",
        TCX_KERNEL.0,
        TCX_KERNEL.1
    )]
    NoTcx {
        /// The running release.
        found: String,
    },
    /// The kernel refused.
    #[error("{operation} program {program} at device {device}")]
    Refused {
        /// What was to be done.
        operation: &'static str,
        /// The program.
        program: &'static str,
        /// Name of the device.
        device: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A pin could not be made or removed.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// The packet programs of the object, verified and loaded.
#[derive(Debug, Default)]
pub struct PacketPrograms {
    programs: BTreeMap<&'static str, OwnedFd>,
}

impl PacketPrograms {
    /// These programs, by the names they have in the object.
    pub fn new(programs: impl IntoIterator<Item = (&'static str, OwnedFd)>) -> Self {
        Self { programs: programs.into_iter().collect() }
    }

    /// Names of the programs there are.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.programs.keys().copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// One of the programs, to be run on packets that somebody made.
    pub fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.programs.get(name).map(AsFd::as_fd)
    }
}

impl Programs {
    /// Has the kernel verify the packet programs that the object has; with `early` those for XDP, too. What is attached stays as it is.
    /// Can be called again after a refusal.
    pub fn packet_programs(&mut self, early: bool) -> Result<PacketPrograms, LoadError> {
        let mut loaded = PacketPrograms::default();
        for name in programs::PACKET {
            let Some(program) = self.ebpf.program_mut(name) else { continue };
            let error = |source| LoadError::Program { name, source: Box::new(source) };
            let program: &mut SchedClassifier = program.try_into().map_err(error)?;
            if program.fd().is_err() {
                program.load().map_err(error)?;
            }
            loaded.programs.insert(name, duplicate(program.fd()).map_err(error)?);
        }
        let name = programs::XDP_OUTSIDE;
        if let Some(program) = self.ebpf.program_mut(name).filter(|_| early) {
            let error = |source| LoadError::Program { name, source: Box::new(source) };
            let program: &mut Xdp = program.try_into().map_err(error)?;
            if program.fd().is_err() {
                program.load().map_err(error)?;
            }
            loaded.programs.insert(name, duplicate(program.fd()).map_err(error)?);
        }
        Ok(loaded)
    }
}

fn duplicate(fd: Result<&ProgramFd, ProgramError>) -> Result<OwnedFd, ProgramError> {
    fd?.as_fd().try_clone_to_owned().map_err(ProgramError::IOError)
}

/// The programs that a kind of device gets, and where.
fn programs_of(kind: DeviceKind, early: Early) -> Vec<(&'static str, Hook)> {
    match kind {
        DeviceKind::Pod => vec![(programs::FROM_POD, Hook::Ingress), (programs::TO_POD, Hook::Egress)],
        DeviceKind::Overlay => {
            vec![(programs::FROM_OUTSIDE, Hook::Ingress), (programs::TO_OUTSIDE, Hook::Egress)]
        }
        DeviceKind::Uplink => {
            let xdp = (early != Early::Off).then_some((programs::XDP_OUTSIDE, Hook::Xdp));
            let tcx = [(programs::FROM_OUTSIDE, Hook::Ingress), (programs::TO_OUTSIDE, Hook::Egress)];
            tcx.into_iter().chain(xdp).collect()
        }
    }
}

/// What a comparison of devices did.
#[derive(Debug, Default)]
pub struct Synced {
    /// Links made.
    pub created: usize,
    /// Links of an earlier agent that have got our program.
    pub replaced: usize,
    /// Links removed.
    pub removed: usize,
    /// What could not be done.
    pub problems: Vec<DeviceError>,
}

/// Who holds the programs at the devices.
#[derive(Debug)]
pub struct Devices {
    pins: Pins,
    programs: PacketPrograms,
    early: Early,
    /// Pins whose link has our program.
    current: BTreeSet<PathBuf>,
}

impl Devices {
    /// For devices of the network namespace of the calling thread. Attaches and removes nothing yet.
    pub fn new(config: &Config, programs: PacketPrograms, early: Early) -> Result<Self, DeviceError> {
        let found = features::release();
        if features::parse_release(&found).is_none_or(|release| release < TCX_KERNEL) {
            return Err(DeviceError::NoTcx { found });
        }
        Ok(Self { pins: Pins::new(config), programs, early, current: BTreeSet::new() })
    }

    /// Attaches the programs to exactly these devices. What is in order already is not touched.
    pub fn sync(&mut self, devices: &[Device]) -> Synced {
        let mut synced = Synced::default();
        let mut wanted = BTreeSet::new();
        for device in devices {
            self.ensure(device, &mut wanted, &mut synced);
        }
        match self.pinned() {
            Ok(pinned) => {
                for path in pinned.into_iter().filter(|path| !wanted.contains(path)) {
                    self.current.remove(&path);
                    match pins::remove(&path) {
                        Ok(()) => synced.removed += 1,
                        Err(error) => synced.problems.push(error.into()),
                    }
                }
            }
            Err(error) => synced.problems.push(error.into()),
        }
        synced
    }

    /// Attaches the programs to one device at once, such as that of a pod that is about to start.
    pub fn attach(&mut self, device: &Device) -> Synced {
        let mut synced = Synced::default();
        self.ensure(device, &mut BTreeSet::new(), &mut synced);
        synced
    }

    /// Makes sure that a device has its programs; adds their pins to `wanted`, also those that failed.
    fn ensure(&mut self, device: &Device, wanted: &mut BTreeSet<PathBuf>, synced: &mut Synced) {
        for (program, hook) in programs_of(device.kind, self.early) {
            let path = self.pins.link(&format!("{program}{SEPARATOR}{}", device.ifindex));
            match self.ensure_program(program, hook, device, &path) {
                Ok(Done::Nothing) => {}
                Ok(Done::Created) => synced.created += 1,
                Ok(Done::Replaced) => synced.replaced += 1,
                Err(error) => synced.problems.push(error),
            }
            wanted.insert(path);
        }
    }

    fn ensure_program(
        &mut self,
        program: &'static str,
        hook: Hook,
        device: &Device,
        path: &PathBuf,
    ) -> Result<Done, DeviceError> {
        // A program this build does not have: what an older agent attached there stays.
        let Some(fd) = self.programs.programs.get(program) else { return Ok(Done::Nothing) };
        let refused = |operation, source| DeviceError::Refused {
            operation,
            program,
            device: device.name.clone(),
            source,
        };
        let link = match sys::open_pin(path) {
            Ok(link) => Some(link),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused("open the link of", error)),
        };
        if let Some(link) = link
            && link::is_at(link.as_fd(), device.ifindex, hook)
                .map_err(|error| refused("look at the link of", error))?
        {
            if self.current.contains(path) {
                return Ok(Done::Nothing);
            }
            sys::update_link(link.as_fd(), fd.as_fd()).map_err(|error| refused("replace", error))?;
            self.current.insert(path.clone());
            return Ok(Done::Replaced);
        }
        let mode = if self.early == Early::Generic { XdpMode::Generic } else { XdpMode::Native };
        let link = match link::create(fd.as_fd(), device.ifindex, hook, mode) {
            Ok(link) => link,
            // This driver cannot: the packets are seen later, by the other programs.
            Err(error) if hook == Hook::Xdp && self.early == Early::Auto && is_no_xdp(&error) => {
                return Ok(Done::Nothing);
            }
            // It went between being seen and now.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Done::Nothing),
            Err(error) => return Err(refused("attach", error)),
        };
        let next = pins::next(path);
        sys::pin(link.as_fd(), &next).map_err(|error| refused("pin the link of", error))?;
        std::fs::rename(&next, path).map_err(|error| PinError::new("rename", &next, error))?;
        self.current.insert(path.clone());
        Ok(Done::Created)
    }

    /// The pins of links to devices.
    fn pinned(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut pinned = self.pins.link_pins()?;
        pinned.retain(|path| path.to_string_lossy().contains(SEPARATOR));
        Ok(pinned)
    }
}

/// What was done for one program at one device.
enum Done {
    Nothing,
    Created,
    Replaced,
}

/// Whether this is how a driver says that it cannot.
fn is_no_xdp(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSPC | libc::EBUSY))
}
