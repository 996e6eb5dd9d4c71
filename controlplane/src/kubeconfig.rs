//! Kubeconfig files with everything inside: the CA, a client certificate and its key.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::args::KubeconfigArgs;
use crate::data_dir::{DataDir, write_file};
use crate::pki::{Authority, Identity, Pki, Usage};

/// The text of a kubeconfig; JSON, which every reader of kubeconfigs takes as the YAML it is.
pub fn text(server: &str, ca: &str, user: &str, identity: &Identity) -> String {
    let context = format!("{user}@pagurus");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "pagurus",
            "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca)},
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.certificate),
                "client-key-data": STANDARD.encode(&identity.key),
            },
        }],
        "contexts": [{"name": context, "context": {"cluster": "pagurus", "user": user}}],
        "current-context": context,
    });
    format!("{config:#}\n")
}

/// Writes the administrator's kubeconfig, unless the one that is there is still good for that server.
pub fn write_admin(data_dir: &Path, server: &str) -> Result<()> {
    let authority = Pki::authority(data_dir)?;
    let path = data_dir.join("admin.kubeconfig");
    if std::fs::read_to_string(&path).is_ok_and(|text| still_good(&text, server, &authority)) {
        return Ok(());
    }
    let user = "kubernetes-admin";
    let identity = authority.issue(Usage::Client, user, Some("system:masters"), &[])?;
    write_file(&path, text(server, authority.pem(), user, &identity).as_bytes(), 0o600)
}

/// Whether a kubeconfig that was written here leads to that server with a certificate that lasts.
fn still_good(text: &str, server: &str, authority: &Authority) -> bool {
    let Ok(config) = serde_json::from_str::<serde_json::Value>(text) else { return false };
    let decoded = |pointer: &str| {
        let encoded = config.pointer(pointer)?.as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    };
    let identity = decoded("/users/0/user/client-certificate-data")
        .zip(decoded("/users/0/user/client-key-data"))
        .map(|(certificate, key)| Identity { certificate, key });
    config.pointer("/clusters/0/cluster/server").and_then(|s| s.as_str()) == Some(server)
        && decoded("/clusters/0/cluster/certificate-authority-data").as_deref() == Some(authority.pem())
        && identity.is_some_and(|identity| authority.still_fits(&identity, &[]))
}

/// The subcommand: signs a certificate for a user and prints or writes the kubeconfig.
pub fn run(args: &KubeconfigArgs) -> Result<()> {
    DataDir::check(&args.data_dir)?;
    ensure!(!args.user.is_empty(), "--user is empty");
    ensure!(
        args.server.starts_with("https://"),
        "--server: \"{}\" is not the address of an API server; write it like https://192.0.2.1:6443",
        args.server
    );
    let authority: Authority = Pki::authority(&args.data_dir)?;
    let identity = authority.issue(Usage::Client, &args.user, args.group.as_deref(), &[])?;
    let text = text(&args.server, authority.pem(), &args.user, &identity);
    match &args.out {
        Some(path) => {
            let path =
                std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))?;
            write_file(&path, text.as_bytes(), 0o600)
        }
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_file_is_kept_while_it_is_good() {
        let dir = tempfile::tempdir().expect("tempdir");
        Pki::load_or_make(dir.path(), &[]).expect("pki");
        let read = || std::fs::read_to_string(dir.path().join("admin.kubeconfig")).expect("written");
        write_admin(dir.path(), "https://192.0.2.1:6443").expect("first");
        let first = read();
        write_admin(dir.path(), "https://192.0.2.1:6443").expect("same");
        assert_eq!(read(), first);
        write_admin(dir.path(), "https://192.0.2.2:6443").expect("moved");
        assert_ne!(read(), first);
    }
}
