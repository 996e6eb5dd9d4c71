//! What there is of a pod, written in a few words: for tests only.

use jiff::Timestamp;

use super::observed::{ContainerState, Exit, ObservedContainer, ObservedPod, ObservedSandbox};

/// A point in time.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a word of the test")
}

/// The time at which situations are looked at.
pub(crate) const NOW: i64 = 10_000;

/// What there is, in words: `S` a ready sandbox, `s` one that is not, `a:run`, `a:made`, `a:lost`, `a:exit=CODE[@SECONDS ago]`,
/// each with `#ATTEMPT` or none. Containers are in the youngest sandbox named so far.
pub(crate) fn observed(words: &str) -> ObservedPod {
    let mut pod = ObservedPod::default();
    for (place, word) in words.split_whitespace().enumerate() {
        let place = i64::try_from(place).expect("a word of the test");
        if word.eq_ignore_ascii_case("s") {
            let attempt = u32::try_from(pod.sandboxes.len()).expect("a word of the test");
            let id = format!("s{attempt}");
            pod.sandboxes.push(ObservedSandbox {
                id,
                attempt,
                ready: word == "S",
                created: at(place),
                ..Default::default()
            });
            continue;
        }
        let (name, state) = word.split_once(':').expect("a word of the test");
        let (state, attempt) = state.split_once('#').unwrap_or((state, "0"));
        let state = match state.split_once('=') {
            Some((_, code)) => {
                let (code, ago) = code.split_once('@').unwrap_or((code, "100"));
                let finished = at(NOW - ago.parse::<i64>().expect("a word of the test"));
                ContainerState::Exited(Exit {
                    started: Some(finished),
                    finished,
                    code: code.parse().expect("a word of the test"),
                    ..Exit::default()
                })
            }
            None if state == "run" => ContainerState::Running { started: at(place) },
            None if state == "made" => ContainerState::Created,
            None => ContainerState::Unknown,
        };
        let attempt: u32 = attempt.parse().expect("a word of the test");
        pod.containers.push(ObservedContainer {
            id: format!("{name}{attempt}"),
            sandbox: pod.sandboxes.last().map(|s| s.id.clone()).unwrap_or_default(),
            name: name.into(),
            attempt,
            backoff_step: attempt,
            created: at(place),
            state,
            wanted_image: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
            stop: Default::default(),
        });
    }
    pod.sort();
    pod
}
