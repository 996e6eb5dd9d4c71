//! Kernel settings of the calling thread's network namespace.
//!
//! Must not know: why they are set.

use std::io;
use std::path::PathBuf;
use std::{fs, str};

/// A setting that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct Error {
    operation: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

/// Writes a setting below `/proc/sys/net`, if it has another value; false if this kernel has no such setting.
pub fn set(name: &str, value: &str) -> Result<bool, Error> {
    match get(name)? {
        None => Ok(false),
        Some(old) if old == value => Ok(true),
        Some(_) => match fs::write(path(name), value) {
            Ok(()) => Ok(true),
            Err(source) => Err(Error { operation: "write", path: path(name).display().to_string(), source }),
        },
    }
}

/// Reads a setting; none if this kernel has no such setting.
pub fn get(name: &str) -> Result<Option<String>, Error> {
    match fs::read_to_string(path(name)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error { operation: "read", path: path(name).display().to_string(), source }),
    }
}

/// Makes this namespace a router for both families, and keeps what its interfaces learn from router advertisements.
pub fn route_packets() -> Result<(), Error> {
    set("ipv4/ip_forward", "1")?;
    if get("ipv6/conf/all/forwarding")?.as_deref() == Some("0") {
        let interfaces = fs::read_dir(path("ipv6/conf")).into_iter().flatten().flatten();
        for name in interfaces.filter_map(|entry| entry.file_name().into_string().ok()) {
            // A router ignores advertisements where this is 1, and would lose its default route.
            let setting = format!("ipv6/conf/{name}/accept_ra");
            if get(&setting)?.as_deref() == Some("1") {
                set(&setting, "2")?;
            }
        }
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}
