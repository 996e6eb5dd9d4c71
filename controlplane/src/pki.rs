//! The keys and certificates of a cluster: made at the first start, kept in `DIR/pki`, renewed when they no longer fit.

mod certificate;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcgen::KeyPair;

pub use certificate::{Authority, Identity, Usage};

use crate::data_dir::write_file;

/// All of it, as PEM texts.
#[derive(Debug, Clone)]
pub struct Pki {
    /// The CA that clients trust and that signs every client of the cluster.
    pub ca: String,
    /// Its key.
    pub ca_key: String,
    /// What the API server shows to its clients.
    pub serving: Identity,
    /// What the API server shows to the nodes' agents.
    pub kubelet_client: Identity,
    /// The CA of the front proxy, which signs nobody but the aggregation layer.
    pub front_proxy_ca: String,
    /// What the API server shows to aggregated API servers.
    pub front_proxy_client: Identity,
    /// The key that signs ServiceAccount tokens.
    pub service_account_key: String,
    /// The key that checks them.
    pub service_account_public_key: String,
}

impl Pki {
    /// Reads what is there and makes what is missing. `names` are the host names and addresses of the API server.
    pub fn load_or_make(data_dir: &Path, names: &[String]) -> Result<Self> {
        let files = Files { dir: data_dir.join("pki") };
        files.make_dir()?;
        let ca = files.authority("ca", "kubernetes")?;
        let front_proxy = files.authority("front-proxy-ca", "front-proxy-ca")?;
        let (service_account_key, service_account_public_key) = files.signing_key("sa")?;
        Ok(Self {
            serving: files.identity("apiserver", &ca, Usage::Server, "kube-apiserver", None, names)?,
            kubelet_client: files.identity(
                "kubelet-client",
                &ca,
                Usage::Client,
                "kube-apiserver-kubelet-client",
                Some("system:masters"),
                &[],
            )?,
            front_proxy_client: files.identity(
                "front-proxy-client",
                &front_proxy,
                Usage::Client,
                "front-proxy-client",
                None,
                &[],
            )?,
            ca_key: ca.key_pem(),
            ca: ca.pem().to_owned(),
            front_proxy_ca: front_proxy.pem().to_owned(),
            service_account_key,
            service_account_public_key,
        })
    }

    /// The CA of a data directory, to sign with.
    pub fn authority(data_dir: &Path) -> Result<Authority> {
        let files = Files { dir: data_dir.join("pki") };
        match (files.read("ca.crt")?, files.read("ca.key")?) {
            (Some(certificate), Some(key)) => Authority::parse(&certificate, &key)
                .with_context(|| format!("cannot use the CA in {}", files.dir.display())),
            _ => bail!(
                "{} holds no CA (ca.crt, ca.key); start the control plane once first",
                files.dir.display()
            ),
        }
    }
}

/// The names by which the API server is called from anywhere.
pub fn serving_names(advertise: IpAddr, bind: IpAddr, services: &[IpAddr], hostname: &str) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        hostname,
        "127.0.0.1",
        "::1",
    ]
    .into_iter()
    .filter(|name| !name.is_empty())
    .map(str::to_owned)
    .collect();
    let addresses = [advertise, bind].into_iter().chain(services.iter().copied());
    for address in addresses.filter(|a| !a.is_unspecified()) {
        let address = address.to_string();
        if !names.contains(&address) {
            names.push(address);
        }
    }
    names
}

/// The files of the `pki` folder.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn make_dir(&self) -> Result<()> {
        match fs::create_dir(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(e).with_context(|| format!("cannot make {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        write_file(&self.dir.join(name), text.as_bytes(), mode)
    }

    /// A CA is made once; a half of one is an error, since replacing it would lock every member out.
    fn authority(&self, name: &str, common_name: &str) -> Result<Authority> {
        let (crt, key) = (format!("{name}.crt"), format!("{name}.key"));
        match (self.read(&crt)?, self.read(&key)?) {
            (Some(certificate), Some(key_text)) => Authority::parse(&certificate, &key_text)
                .with_context(|| format!("cannot use {} and {key}", self.dir.join(crt).display())),
            (Some(_), None) => bail!("{} is missing beside {crt}; restore it", self.dir.join(key).display()),
            // The key is written first: a key alone is what a crash in between leaves.
            (None, _) => {
                let authority = Authority::make(common_name)?;
                self.write(&key, &authority.key_pem(), 0o600)?;
                self.write(&crt, authority.pem(), 0o644)?;
                Ok(authority)
            }
        }
    }

    /// Keeps an identity while it is signed by that CA, names everything, and is not about to end.
    fn identity(
        &self,
        name: &str,
        ca: &Authority,
        usage: Usage,
        common_name: &str,
        organization: Option<&str>,
        names: &[String],
    ) -> Result<Identity> {
        let (crt, key) = (format!("{name}.crt"), format!("{name}.key"));
        if let (Some(certificate), Some(key)) = (self.read(&crt)?, self.read(&key)?) {
            let identity = Identity { certificate, key };
            if ca.still_fits(&identity, names) {
                return Ok(identity);
            }
        }
        let identity = ca.issue(usage, common_name, organization, names)?;
        self.write(&key, &identity.key, 0o600)?;
        self.write(&crt, &identity.certificate, 0o644)?;
        Ok(identity)
    }

    fn signing_key(&self, name: &str) -> Result<(String, String)> {
        let file = format!("{name}.key");
        let key = match self.read(&file)? {
            Some(text) => KeyPair::from_pem(&text)
                .with_context(|| format!("{} is not a usable private key", self.dir.join(&file).display()))?,
            None => {
                let key = KeyPair::generate().context("cannot make a key for ServiceAccount tokens")?;
                self.write(&file, &key.serialize_pem(), 0o600)?;
                key
            }
        };
        let public = key.public_key_pem();
        let public_file = format!("{name}.pub");
        if self.read(&public_file)?.as_deref() != Some(public.as_str()) {
            self.write(&public_file, &public, 0o644)?;
        }
        Ok((key.serialize_pem(), public))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn second_start_keeps_everything() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = Pki::load_or_make(dir.path(), &names(&["localhost", "127.0.0.1"])).expect("made");
        let second = Pki::load_or_make(dir.path(), &names(&["127.0.0.1"])).expect("read");
        assert_eq!(first.ca, second.ca);
        assert_eq!(first.serving.certificate, second.serving.certificate);
        assert_eq!(first.service_account_key, second.service_account_key);
    }

    #[test]
    fn new_name_renews_the_serving_certificate_only() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = Pki::load_or_make(dir.path(), &names(&["localhost"])).expect("made");
        let second = Pki::load_or_make(dir.path(), &names(&["localhost", "192.0.2.7"])).expect("renewed");
        assert_eq!(first.ca, second.ca);
        assert_ne!(first.serving.certificate, second.serving.certificate);
        assert_eq!(first.kubelet_client.certificate, second.kubelet_client.certificate);
    }

    #[test]
    fn lost_ca_key_is_an_error() {
        let dir = tempfile::tempdir().expect("tempdir");
        Pki::load_or_make(dir.path(), &[]).expect("made");
        fs::remove_file(dir.path().join("pki/ca.key")).expect("remove");
        let error = Pki::load_or_make(dir.path(), &[]).expect_err("lost").to_string();
        assert!(error.contains("ca.key is missing"), "{error}");
    }
}
