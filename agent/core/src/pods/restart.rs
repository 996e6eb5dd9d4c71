//! Whether and when a container that has ended is started again. The back-off is read from the container itself (it
//! carries its step as an annotation), so it survives the agent. Must not know other containers.

use jiff::{SignedDuration, Timestamp};

use super::observed::{ContainerState, Exit, ObservedContainer};
use super::progress::later;
use super::spec::{Container, ContainerKind, Pod, RestartPolicy};

/// Delay after the first restart that failed.
pub const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// The longest delay.
pub const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran so long begins anew.
pub const RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// What comes next for a container that does not run.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// It is started.
    Start(Attempt),
    /// It is started later.
    Wait {
        /// When.
        until: Timestamp,
        /// How long the whole wait is.
        delay: SignedDuration,
        /// What is done then.
        attempt: Attempt,
    },
    /// It is not started any more.
    Over,
}

/// A start of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// How often it was started before.
    pub number: u32,
    /// How many of these count for the back-off.
    pub step: u32,
}

/// The policy that holds for a container of this kind.
pub fn policy(pod: &Pod, kind: ContainerKind, container: &Container) -> RestartPolicy {
    match (kind, container.restart_policy) {
        (ContainerKind::Ephemeral, _) => RestartPolicy::Never,
        (_, Some(own)) => own,
        (ContainerKind::Init, None) if pod.spec.restart_policy == RestartPolicy::Always => {
            RestartPolicy::OnFailure
        }
        (_, None) => pod.spec.restart_policy,
    }
}

/// Whether a container that ended so is started again, some time.
pub fn restarts(pod: &Pod, kind: ContainerKind, container: &Container, exit: &Exit) -> bool {
    let matches_rule = container.restart_policy_rules.iter().any(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.contains(&exit.code);
        rule.action == "Restart" && if codes.operator == "NotIn" { !listed } else { listed }
    });
    if matches_rule {
        return true;
    }
    match policy(pod, kind, container) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit.code != 0,
        RestartPolicy::Never => false,
    }
}

/// Whether the pod wants another image by now than that which this container was made from. It is then made anew, whatever the
/// policy says.
pub fn is_outdated(kind: ContainerKind, container: &Container, found: &ObservedContainer) -> bool {
    matches!(kind, ContainerKind::App | ContainerKind::Sidecar)
        && !found.wanted_image.is_empty()
        && found.wanted_image != container.image
}

/// What comes next for a container that has ended so.
pub fn next(
    pod: &Pod,
    kind: ContainerKind,
    container: &Container,
    ended: &ObservedContainer,
    now: Timestamp,
) -> Next {
    let ContainerState::Exited(exit) = &ended.state else {
        return Next::Start(again(ended));
    };
    if is_outdated(kind, container, ended) {
        return Next::Start(Attempt { number: ended.attempt.saturating_add(1), step: 0 });
    }
    if !restarts(pod, kind, container, exit) {
        return Next::Over;
    }
    let attempt = again(ended);
    let delay = delay(attempt.step);
    let until = later(exit.finished, delay);
    if until <= now { Next::Start(attempt) } else { Next::Wait { until, delay, attempt } }
}

/// The attempt that follows this container.
pub fn again(before: &ObservedContainer) -> Attempt {
    let ran_long =
        before.exit().and_then(|exit| Some(exit.finished.duration_since(exit.started?) > RESET_AFTER));
    let step = if ran_long.unwrap_or(false) { 0 } else { before.backoff_step };
    Attempt { number: before.attempt.saturating_add(1), step: step.saturating_add(1) }
}

/// The delay before the start of this step: none before the first restart, then doubling.
pub fn delay(step: u32) -> SignedDuration {
    match step {
        0 | 1 => SignedDuration::ZERO,
        more => FIRST_DELAY.saturating_mul(1 << (more - 2).min(8)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::spec::{ExitCodes, RestartRule};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(step: u32, code: i32, ran: i64) -> ObservedContainer {
        ObservedContainer {
            id: "c".into(),
            sandbox: "s".into(),
            name: "c".into(),
            attempt: 4,
            backoff_step: step,
            created: at(0),
            state: ContainerState::Exited(Exit {
                started: Some(at(1000 - ran)),
                finished: at(1000),
                code,
                ..Exit::default()
            }),
            wanted_image: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
            stop: Default::default(),
        }
    }

    #[test]
    fn delays() {
        let seconds: Vec<_> = (0..9).map(|step| delay(step).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn table() {
        use ContainerKind::{App, Ephemeral, Init, Sidecar};
        use RestartPolicy::{Always, Never, OnFailure};
        let start = |step| Next::Start(Attempt { number: 5, step });
        let wait = |seconds, step| Next::Wait {
            until: at(1000 + seconds),
            delay: SignedDuration::from_secs(seconds),
            attempt: Attempt { number: 5, step },
        };
        for (name, kind, policy, step, code, ran, now, expected) in [
            ("always restarts success", App, Always, 0, 0, 1, 1000, start(1)),
            ("second restart waits", App, Always, 1, 1, 1, 1005, wait(10, 2)),
            ("second restart after the wait", App, Always, 1, 1, 1, 1010, start(2)),
            ("a long run resets", App, Always, 6, 1, 601, 1000, start(1)),
            ("on failure leaves success", App, OnFailure, 0, 0, 1, 1000, Next::Over),
            ("on failure restarts failure", App, OnFailure, 0, 1, 1, 1000, start(1)),
            ("never", App, Never, 0, 1, 1, 1000, Next::Over),
            ("init with always is done when it succeeded", Init, Always, 0, 0, 1, 1000, Next::Over),
            ("init with always restarts failure", Init, Always, 0, 1, 1, 1000, start(1)),
            ("init with never", Init, Never, 0, 1, 1, 1000, Next::Over),
            ("ephemeral never restarts", Ephemeral, Always, 0, 1, 1, 1000, Next::Over),
        ] {
            let mut pod = Pod::default();
            pod.spec.restart_policy = policy;
            let next = next(&pod, kind, &Container::default(), &ended(step, code, ran), at(now));
            assert_eq!(next, expected, "{name}");
        }
        let mut pod = Pod::default();
        pod.spec.restart_policy = Never;
        let sidecar = Container { restart_policy: Some(Always), ..Default::default() };
        assert_eq!(next(&pod, Sidecar, &sidecar, &ended(0, 0, 1), at(1000)), start(1));
    }

    #[test]
    fn rules_come_before_the_policy() {
        let rule = |operator: &str| RestartRule {
            action: "Restart".into(),
            exit_codes: Some(ExitCodes { operator: operator.into(), values: vec![42] }),
        };
        let mut pod = Pod::default();
        pod.spec.restart_policy = RestartPolicy::Never;
        let mut container = Container { restart_policy_rules: vec![rule("In")], ..Default::default() };
        let exit = |code| Exit { code, ..Exit::default() };
        assert!(restarts(&pod, ContainerKind::App, &container, &exit(42)));
        assert!(!restarts(&pod, ContainerKind::App, &container, &exit(1)));
        container.restart_policy_rules = vec![rule("NotIn")];
        assert!(!restarts(&pod, ContainerKind::App, &container, &exit(42)));
        assert!(restarts(&pod, ContainerKind::App, &container, &exit(1)));
    }
}
