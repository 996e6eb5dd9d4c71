//! Attaching the programs to the node's cgroup: one pinned link for each, whose program is replaced atomically.
//!
//! Must not know: what the programs do.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError};
use pagurus_ebpf_abi::programs;

use crate::pins::{self, PinError, Pins};
use crate::programs::Programs;
use crate::{Config, LoadError, sys};

/// Why a program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The cgroup directory cannot be opened.
    #[error("open cgroup {path}")]
    Cgroup {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("attach program {program} to cgroup {path}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object lacks a program.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A pin could not be made or removed.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// How many programs were attached in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// New links.
    pub created: usize,
    /// Links of an earlier agent, whose program was replaced.
    pub replaced: usize,
}

impl Programs {
    /// Attaches every program, in place of those an earlier agent attached; after that no old program runs. Can be
    /// called again.
    pub fn attach(&mut self) -> Result<Attached, AttachError> {
        let path = self.config.cgroup_root.clone();
        let cgroup =
            File::open(&path).map_err(|source| AttachError::Cgroup { path: display(&path), source })?;
        let cgroup_id =
            cgroup.metadata().map_err(|source| AttachError::Cgroup { path: display(&path), source })?.ino();
        let mut attached = Attached::default();
        for name in programs::SOCKET {
            let pin = self.pins.link(name);
            let program = socket_program(&mut self.ebpf, name)?;
            let refused = |source: Box<dyn std::error::Error + Send + Sync>| AttachError::Refused {
                program: name,
                path: display(&path),
                source,
            };
            if replace(program, &pin, cgroup_id).map_err(|error| refused(error.into()))? {
                attached.replaced += 1;
            } else {
                create(program, &pin, &cgroup).map_err(refused)?;
                attached.created += 1;
            }
        }
        // What the old programs noted up to now.
        self.carry_over()?;
        self.pins.settle(&mut self.places)?;
        crate::reading::settle(&self.pins)?;
        Ok(attached)
    }
}

/// Detaches every program of this node and removes all pins: Services are no longer served.
pub fn remove(config: &Config) -> Result<(), PinError> {
    pinned(&config.bpffs)?.iter().try_for_each(|path| unpin(path))
}

/// Whatever is pinned below this BPF file system, by this version or another: first the links, by which programs are attached, then
/// maps, each folder after what is in it.
pub fn pinned(bpffs: &Path) -> Result<Vec<PathBuf>, PinError> {
    Pins::at(bpffs).everything()
}

/// Takes one of [`pinned`] away; a program is detached with its link.
pub fn unpin(path: &Path) -> Result<(), PinError> {
    pins::remove_either(path)
}

/// Whether a link of each program for sockets is pinned below this BPF file system.
pub fn is_attached(bpffs: &Path) -> bool {
    let pins = Pins::at(bpffs);
    programs::SOCKET.iter().all(|name| pins.link(name).exists())
}

/// A socket program of the loaded object.
pub(crate) fn socket_program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut CgroupSockAddr, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Lacks(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source: Box::new(source) })
}

/// Puts the program into the pinned link, if there is one and it is attached to this cgroup.
fn replace(program: &CgroupSockAddr, pin: &Path, cgroup_id: u64) -> Result<bool, ReplaceError> {
    let link = match sys::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if sys::link_cgroup(link.as_fd())? != Some(cgroup_id) {
        return Ok(false);
    }
    sys::update_link(link.as_fd(), program.fd()?.as_fd())?;
    Ok(true)
}

/// Why a link could not be given another program.
#[derive(Debug, thiserror::Error)]
enum ReplaceError {
    #[error("replace the program of the pinned link")]
    Link(#[from] io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Makes a link and pins it, in place of one that is attached elsewhere.
fn create(
    program: &mut CgroupSockAddr,
    pin: &Path,
    cgroup: &File,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Links always allow several programs in a cgroup; the mode says it for kernels that have no links, which are
    // refused before.
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    let next = pins::next(pin);
    link.pin(&next)?;
    std::fs::rename(&next, pin)?;
    Ok(())
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
