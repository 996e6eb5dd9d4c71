//! Creating and deleting many pods for one owner: from a template, in batches that grow while all goes well.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::api::DeleteParams;

use super::object::name;
use super::outcome;
use super::recorder::{Note, Recorder};
use super::writer::Writer;

/// At most so many pods are created or deleted in one pass.
pub const BURST: usize = 500;

/// The pod that a template asks for, with a generated name.
pub fn from_template(owner: &ObjectMeta, reference: OwnerReference, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.as_ref();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.namespace.clone(),
            generate_name: Some(format!("{}-", name(owner))),
            labels: meta.and_then(|m| m.labels.clone()),
            annotations: meta.and_then(|m| m.annotations.clone()),
            finalizers: meta.and_then(|m| m.finalizers.clone()),
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Sizes of the batches in which `count` things are tried: 1, 2, 4, ...
pub fn batches(mut count: usize) -> impl Iterator<Item = usize> {
    let mut size = 1;
    std::iter::from_fn(move || {
        let batch = size.min(count);
        count -= batch;
        size *= 2;
        (batch > 0).then_some(batch)
    })
}

/// Creates pods for `owner`. Stops after the first batch with a failure; the error is that batch's first one.
pub async fn create_all<O>(
    owner: &O,
    pods: Vec<Pod>,
    writer: &Writer<Pod>,
    recorder: &Recorder,
) -> Result<(), kube::Error>
where
    O: Resource<DynamicType = ()>,
{
    let mut rest = pods.into_iter();
    for batch in batches(rest.len()) {
        let tries =
            rest.by_ref().take(batch).map(|pod| async move { create(owner, &pod, writer, recorder).await });
        for result in join_all(tries).await {
            result?;
        }
    }
    Ok(())
}

async fn create<O>(owner: &O, pod: &Pod, writer: &Writer<Pod>, recorder: &Recorder) -> Result<(), kube::Error>
where
    O: Resource<DynamicType = ()>,
{
    match writer.create(pod).await {
        Ok(made) => {
            recorder.note(
                owner,
                &Note::normal("SuccessfulCreate", format!("Created pod: {}", name(&made.metadata))),
            );
            Ok(())
        }
        Err(error) => {
            if !outcome::namespace_terminating(&error) {
                let text = format!("Error creating: {}", outcome::message(&error));
                recorder.note(owner, &Note::warning("FailedCreate", text));
            }
            Err(error)
        }
    }
}

/// Deletes pods of `owner`, all at once; the error is the first one.
pub async fn delete_all<'p, O>(
    owner: &O,
    pods: impl IntoIterator<Item = &'p Pod>,
    writer: &Writer<Pod>,
    recorder: &Recorder,
) -> Result<(), kube::Error>
where
    O: Resource<DynamicType = ()>,
{
    let deletions = pods.into_iter().take(BURST).map(|pod| async move {
        let result = writer.delete(pod, &DeleteParams::default(), false).await;
        let pod_name = name(&pod.metadata);
        match &result {
            Ok(()) => {
                let note = Note::normal("SuccessfulDelete", format!("Deleted pod: {pod_name}"));
                recorder.note(owner, &note);
            }
            Err(error) => {
                let text = format!("Error deleting: {}", outcome::message(error));
                recorder.note(owner, &Note::warning("FailedDelete", text));
            }
        }
        result
    });
    for result in join_all(deletions).await {
        match result {
            Err(error) if outcome::conflict(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

/// How many active pods of a set stand on each node.
pub fn per_node<'p>(pods: impl IntoIterator<Item = &'p Pod>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in pods {
        *counts.entry(super::object::node_name(pod).to_owned()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_sizes() {
        for (count, expected) in
            [(0, vec![]), (1, vec![1]), (2, vec![1, 1]), (10, vec![1, 2, 4, 3]), (15, vec![1, 2, 4, 8])]
        {
            assert_eq!(batches(count).collect::<Vec<_>>(), expected);
        }
    }
}
