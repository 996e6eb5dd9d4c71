//! The CNI configuration file, by which the runtime finds the plugin; and the loopback plugin it calls before any other.
//!
//! Must not know: what the plugin does.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::write_whole;

/// The name of the file, before others in the order runtimes read them.
pub const FILE: &str = "10-pagurus.conflist";
/// The plugin.
pub const PLUGIN: &str = "pagurus-cni";
/// The newest version that containerd 1.6 speaks.
const CNI_VERSION: &str = "1.0.0";
/// Where runtimes look for plugins unless told otherwise.
const PLUGINS: &str = "/opt/cni/bin";

/// Writes the file, if it is not there as it should be.
pub(super) fn write(folder: &Path, socket: &Path) -> anyhow::Result<()> {
    let content = json!({
        "cniVersion": CNI_VERSION,
        "name": "pagurus",
        "plugins": [{
            "type": PLUGIN,
            "agentSocket": socket.display().to_string(),
            "capabilities": { "portMappings": true }
        }]
    });
    let mut content = serde_json::to_vec_pretty(&content).context("encode the CNI configuration")?;
    content.push(b'\n');
    let path = folder.join(FILE);
    loopback(Path::new(PLUGINS))?;
    if fs::read(&path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    write_whole(&path, &content)
}

/// Our plugin is also the `loopback` plugin; it is linked under that name where there is no other.
fn loopback(folder: &Path) -> anyhow::Result<()> {
    let link = folder.join("loopback");
    if !folder.join(PLUGIN).exists() || link.symlink_metadata().is_ok() {
        return Ok(());
    }
    match symlink(PLUGIN, &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("link {}", link.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let conf = folder.path().join("net.d");
        write(&conf, Path::new("/run/x.sock")).expect("write");
        let path = conf.join(FILE);
        let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).expect("metadata");
        let first = modified(&path);
        write(&conf, Path::new("/run/x.sock")).expect("again");
        assert_eq!(modified(&path), first);
        let content: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        assert_eq!(content["plugins"][0]["agentSocket"], "/run/x.sock");
        assert_eq!(fs::read_dir(&conf).expect("list").count(), 1);
    }

    #[test]
    fn loopback_is_linked_beside_our_plugin_only() {
        let folder = tempfile::tempdir().expect("a folder");
        loopback(folder.path()).expect("nothing to do");
        assert!(!folder.path().join("loopback").exists());
        fs::write(folder.path().join("pagurus-cni"), b"").expect("write");
        loopback(folder.path()).expect("link");
        loopback(folder.path()).expect("again");
        assert!(folder.path().join("loopback").exists());
    }
}
