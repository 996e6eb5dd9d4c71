//! The pods of a Job. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::indexes::INDEX;
use super::tracking::FINALIZER;
use crate::runtime::object::{controller_reference, name, set_annotation, set_label};
use crate::runtime::pods::from_template;

const ENV: &str = "JOB_COMPLETION_INDEX";

/// A pod of a Job, for an index if it has indexes.
pub(super) fn pod(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut pod = from_template(&job.metadata, controller_reference(job), &template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let own_name = format!("{}-{index}", name(&job.metadata));
    pod.metadata.generate_name = Some(format!("{own_name}-"));
    set_annotation(&mut pod.metadata, INDEX, index.to_string());
    set_label(&mut pod.metadata, INDEX, index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(own_name);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|e| e.name == ENV) {
            continue;
        }
        env.push(EnvVar {
            name: ENV.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: format!("metadata.annotations['{INDEX}']"),
                }),
                ..EnvVarSource::default()
            }),
        });
    }
    pod
}
