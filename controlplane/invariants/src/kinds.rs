//! The rules of each kind: whatever fits its type is judged and shown without a panic, alone and as a change of something else.

use pagurus_controlplane_apiserver::request::UserInfo;
use pagurus_controlplane_apiserver::resources;
use pagurus_controlplane_apiserver::strategy::{Context, Strategy};
use pagurus_controlplane_schema::codec::json as json_codec;
use pagurus_controlplane_schema::{Resource, Table, defaults, normalize};
use serde_json::{Value, json};

use crate::sample;

/// Two bytes that choose the resource, an object, and after a zero byte another one that it was before.
pub(crate) fn kind(data: &[u8]) {
    let Some((resource, bytes)) = sample::choose(data) else { return };
    let (new, old) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, bytes),
    };
    let strategy = resources::strategy(&resource.group, &resource.plural);
    let (Some(new), Some(old)) = (read(resource, strategy, new), read(resource, strategy, old)) else {
        return;
    };
    judge(resource, strategy, new, &old);
}

fn read(resource: &Resource, strategy: &dyn Strategy, bytes: &[u8]) -> Option<Value> {
    let table = Table::builtin();
    let mut object = json_codec::decode_as(table, resource.type_id, bytes).ok()?.value;
    defaults::apply(table, resource.type_id, &mut object);
    strategy.default(&mut object);
    normalize(table, resource.type_id, &mut object);
    Some(object)
}

fn judge(resource: &Resource, strategy: &dyn Strategy, mut new: Value, old: &Value) {
    let user = UserInfo::server();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let context = Context { resource, user: &user, now };
    let mut created = new.clone();
    strategy.prepare_create(&context, &mut created);
    let errors = strategy.validate(&created);
    assert!(errors.iter().all(|error| !error.to_string().is_empty()), "an error says what is wrong");
    strategy.warnings(&created, None);
    assert_eq!(strategy.cells(&created, now), strategy.cells(&created, now), "a row of {}", resource.kind);
    for field in strategy.selectable_fields() {
        strategy.field(&created, field);
    }
    strategy.graceful_delete(&created, Some(-1));
    strategy.holds_deletion(&created);
    for sub in &resource.subresources {
        let mut through = new.clone();
        strategy.prepare_subresource_update(&context, &sub.name, &mut through, old);
        strategy.validate_subresource_update(&sub.name, &through, old);
    }
    strategy.prepare_update(&context, &mut new, old);
    strategy.validate_update(&new, old);
    strategy.warnings(&new, Some(old));
    strategy.generation_changes(resource, &new, old);
    strategy.mark_deleted(&mut new);
}

pub(crate) fn kind_seeds() -> Vec<Vec<u8>> {
    sample::objects()
        .into_iter()
        .map(|(at, object)| sample::chosen(at, object.to_string().as_bytes()))
        .collect()
}

/// A schedule, a zero byte, a time zone.
pub(crate) fn schedule(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (schedule, zone) = text.split_once('\0').unwrap_or((text, "Etc/UTC"));
    let template = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let object = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"schedule": schedule, "timeZone": zone, "jobTemplate": template}});
    let strategy = resources::strategy("batch", "cronjobs");
    let of = |field: &str| {
        let errors = strategy.validate(&object).into_iter().map(|error| error.to_string());
        errors.filter(|error| error.starts_with(field)).count()
    };
    assert!(of("spec.schedule") <= 2 && of("spec.timeZone") <= 2, "{schedule:?} {zone:?}: told once");
    let words = schedule.split_whitespace().count();
    assert!(
        schedule.starts_with('@') || words == 5 || of("spec.schedule") > 0,
        "{schedule:?} has five fields"
    );
}

pub(crate) fn schedule_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "*/5 * * * *\0Europe/Berlin",
        "0 0 1,15 jan-mar mon-fri/2",
        "@every 1h30m0.5s\0Etc/UTC",
        "@daily\0../zone",
        "59 23 31 12 6\0",
        "TZ=UTC * * * * ?",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
