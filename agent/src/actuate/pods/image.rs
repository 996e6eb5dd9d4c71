//! Has the image of a container at hand before it is made, as its policy says. Must not make containers.

use std::time::Instant;

use base64::Engine as _;
use jiff::SignedDuration;
use pagurus_agent_core::pods::Container;
use pagurus_agent_core::pods::spec::PullPolicy;
use pagurus_agent_core::volumes::needs::Need;
use pagurus_cri_api::v1;
use serde_json::Value;

use super::operations::{Job, Limits, Outcome, about_container, failed};
use super::sandbox;

const PULL_RETRY: Limits = (SignedDuration::from_secs(10), SignedDuration::from_secs(300));

/// What every runtime says of a name that can never be an image's.
const INVALID: &str = "invalid reference format";

/// The image, fetched if need be; or how the start ends without it.
pub(super) async fn ensure(job: &Job, container: &Container) -> Result<v1::Image, Outcome> {
    let about = about_container(&job.pod, &container.name);
    let (events, image) = (&job.host.events, container.image.as_str());
    let present =
        job.host.runtime.image_status(image).await.map_err(|error| failed("ImageInspectError", error))?;
    match (container.image_pull_policy, present) {
        (PullPolicy::IfNotPresent | PullPolicy::Never, Some(present)) => {
            events.normal(
                &about,
                "Pulled",
                format!("Container image \"{image}\" already present on machine"),
            );
            return Ok(present);
        }
        (PullPolicy::Never, None) => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            events.warning(&about, "ErrImageNeverPull", message.clone());
            events.warning(&about, "Failed", "Error: ErrImageNeverPull");
            return Err(Outcome::Failed { reason: "ErrImageNeverPull", message, limits: PULL_RETRY });
        }
        (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => {}
    }
    events.normal(&about, "Pulling", format!("Pulling image \"{image}\""));
    let begun = Instant::now();
    match pull(job, image).await {
        Ok(reference) => {
            let took = begun.elapsed().as_secs_f64();
            let found = job.host.runtime.image_status(&reference).await.ok().flatten();
            let found = found.unwrap_or(v1::Image { id: reference, ..Default::default() });
            let size = found.size;
            events.normal(
                &about,
                "Pulled",
                format!("Successfully pulled image \"{image}\" in {took:.3}s ({took:.3}s including waiting). Image size: {size} bytes."),
            );
            Ok(found)
        }
        Err(error) if error.contains(INVALID) => {
            let why = &error[error.find(INVALID).unwrap_or_default()..];
            let message = format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}"
            );
            events.warning(&about, "InspectFailed", message.clone());
            events.warning(&about, "Failed", "Error: InvalidImageName");
            Err(Outcome::Failed { reason: "InvalidImageName", message, limits: PULL_RETRY })
        }
        Err(error) => {
            let message = format!("Failed to pull image \"{image}\": {error}");
            events.warning(&about, "Failed", message.clone());
            events.warning(&about, "Failed", "Error: ErrImagePull");
            Err(Outcome::Failed { reason: "ErrImagePull", message: error, limits: PULL_RETRY })
        }
    }
}

/// Tries the credentials one after the other, at last none.
async fn pull(job: &Job, image: &str) -> Result<String, String> {
    let mut tries: Vec<Option<v1::AuthConfig>> =
        credentials(job, image).await.into_iter().map(Some).collect();
    tries.push(None);
    let mut errors = Vec::new();
    for auth in tries {
        let request = v1::PullImageRequest {
            image: Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
            auth,
            sandbox_config: Some(sandbox::config(job, 0)),
        };
        match job.host.runtime.pull_image(request).await {
            Ok(reference) => return Ok(reference),
            Err(error) => errors.push(error.runtime_message()),
        }
    }
    Err(errors.join("; "))
}

/// The credentials for the registry of this image, from the pod's image pull secrets.
async fn credentials(job: &Job, image: &str) -> Vec<v1::AuthConfig> {
    let wanted =
        job.pod.spec.image_pull_secrets.iter().map(|secret| Need::Secret(secret.name.clone())).collect();
    let objects = match job.host.objects.objects(&job.pod.name.namespace, &wanted).await {
        Ok(objects) => objects,
        Err(error) => {
            tracing::warn!(%error, "the image pull secrets of the pod are not known");
            return Vec::new();
        }
    };
    let mut out = Vec::new();
    for (name, secret) in &objects.secrets {
        let read = |key: &str| {
            let read = serde_json::from_slice::<Value>(secret.data.get(key)?);
            read.inspect_err(|error| {
                tracing::warn!(pod = %job.pod.name, secret = name, key, %error, "an image pull secret is no JSON; not used");
            })
            .ok()
        };
        let (new, old) = (read(".dockerconfigjson"), read(".dockercfg"));
        let registries = new.map(|mut config| config["auths"].take()).or(old).unwrap_or_default();
        for (registry, entry) in registries.as_object().into_iter().flatten() {
            if serves(registry, image) {
                out.extend(auth(entry));
            }
        }
    }
    out
}

/// Whether this registry (`host`, `host/path` or a URL) is the image's.
fn serves(registry: &str, image: &str) -> bool {
    let place = registry.trim_start_matches("https://").trim_start_matches("http://");
    let place = place.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let first = image.split('/').next().unwrap_or_default();
    let has_host = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if !has_host {
        return matches!(place, "index.docker.io" | "docker.io" | "registry-1.docker.io");
    }
    // Behind a mere host, a colon begins a port and not a tag: that is another registry.
    let ends: &[char] = if place.contains('/') { &['/', ':', '@'] } else { &['/'] };
    image.strip_prefix(place).is_some_and(|rest| rest.starts_with(ends))
}

fn auth(entry: &Value) -> Option<v1::AuthConfig> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if username.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).ok()?;
        let pair = String::from_utf8(decoded).ok()?;
        let (user, pass) = pair.split_once(':')?;
        (username, password) = (user.to_owned(), pass.to_owned());
    }
    Some(v1::AuthConfig { username, password, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn registries() {
        for (registry, image, expected) in [
            ("registry.example.com", "registry.example.com/a/b:1", true),
            ("https://registry.example.com/v2/", "registry.example.com/a", true),
            ("registry.example.com/team", "registry.example.com/team/a@sha256:0", true),
            ("registry.example.com/team", "registry.example.com/teams/a", false),
            ("registry.example.com", "registry.example.com:5000/a", false),
            ("https://index.docker.io/v1/", "busybox", true),
            ("https://index.docker.io/v1/", "library/busybox:1", true),
            ("example.com", "busybox", false),
        ] {
            assert_eq!(serves(registry, image), expected, "{registry} {image}");
        }
    }

    #[test]
    fn both_forms_of_credentials() {
        let expected = v1::AuthConfig { username: "u".into(), password: "p:q".into(), ..Default::default() };
        assert_eq!(auth(&json!({"auth": "dTpwOnE="})), Some(expected.clone()));
        assert_eq!(auth(&json!({"username": "u", "password": "p:q"})), Some(expected));
        assert_eq!(auth(&json!({"auth": "%"})), None);
    }
}
