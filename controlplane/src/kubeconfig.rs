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

/// Writes the administrator's kubeconfig anew, with a new certificate.
pub fn write_admin(data_dir: &Path, server: &str) -> Result<()> {
    let authority = Pki::authority(data_dir)?;
    let user = "kubernetes-admin";
    let identity = authority.issue(Usage::Client, user, Some("system:masters"), &[])?;
    write_file(
        &data_dir.join("admin.kubeconfig"),
        text(server, authority.pem(), user, &identity).as_bytes(),
        0o600,
    )
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
