//! Says of objects that admission depends on that nothing comes of them: webhooks are not called and policies not evaluated yet.
//! Whoever made one must not believe a door shut that is open; an event on the object is where people look, and changes no answer.
//!
//! Must not know: what is in them.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
    ValidatingWebhookConfiguration,
};
use serde::de::DeserializeOwned;

use crate::context::{Context, SHARED};
use crate::runtime::object::Object;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::Change;

const COMPONENT: &str = "pagurus-controlplane";
const REASON: &str = "NotEnforced";
const WEBHOOKS: &str =
    "this control plane does not call admission webhooks yet: the configuration is kept but has no effect";
const POLICIES: &str =
    "this control plane does not evaluate admission policies yet: the object is kept but has no effect";

/// Tells it of every such object, when it is made or changed and after each start.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let recorder = context.recorder_as(SHARED, COMPONENT);
    follow::<MutatingWebhookConfiguration>(context, &recorder, WEBHOOKS);
    follow::<ValidatingWebhookConfiguration>(context, &recorder, WEBHOOKS);
    follow::<MutatingAdmissionPolicy>(context, &recorder, POLICIES);
    follow::<ValidatingAdmissionPolicy>(context, &recorder, POLICIES);
    let cancel = context.cancel.clone();
    async move { cancel.cancelled().await }.boxed()
}

fn follow<K>(context: &Context, recorder: &Recorder, text: &'static str)
where
    K: Object<DynamicType = ()> + DeserializeOwned,
{
    let recorder = recorder.clone();
    context.informers.all::<K>().on_change(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            recorder.note(&**change.object(), &Note::warning(REASON, text));
        }
    });
}
