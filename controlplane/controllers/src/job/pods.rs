//! The pods of a Job. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::indexes::{FAILURES, Failures, IGNORED, INDEX};
use super::tracking::FINALIZER;
use crate::runtime::object::{controller_reference, name, set_annotation, set_label};
use crate::runtime::pods::from_template;

const ENV: &str = "JOB_COMPLETION_INDEX";

/// A pod to be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct New {
    /// Its index, if the Job has indexes.
    pub(super) index: Option<i32>,
    /// How often the index has failed, if that is limited.
    pub(super) failures: Option<Failures>,
}

/// A pod of a Job.
pub(super) fn pod(job: &Job, new: New) -> Pod {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut pod = from_template(&job.metadata, controller_reference(job), &template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = new.index else { return pod };
    if let Some(failures) = new.failures {
        set_annotation(&mut pod.metadata, FAILURES, failures.counted.to_string());
        if failures.ignored > 0 {
            set_annotation(&mut pod.metadata, IGNORED, failures.ignored.to_string());
        }
    }
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
                    field_path: format!("metadata.labels['{INDEX}']"),
                }),
                ..EnvVarSource::default()
            }),
        });
    }
    pod
}
