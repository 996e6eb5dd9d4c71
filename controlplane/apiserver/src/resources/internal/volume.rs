//! The shapes of what a PersistentVolume is made of.

use super::{Member, NODE_SELECTOR_TERM, Shape};
use Shape::{Any, Flag, List, Pointer, Text};

const SECRET: Shape = Pointer(&[("name", "Name", Text), ("namespace", "Namespace", Text)]);

/// From where a volume may be used.
pub(crate) const VOLUME_NODE_AFFINITY: &[Member] = &[(
    "required",
    "Required",
    Pointer(&[("nodeSelectorTerms", "NodeSelectorTerms", List(NODE_SELECTOR_TERM))]),
)];

/// Where a volume's data is.
pub(crate) const VOLUME_SOURCE: &[Member] = &[
    ("gcePersistentDisk", "GCEPersistentDisk", Any),
    ("awsElasticBlockStore", "AWSElasticBlockStore", Any),
    ("hostPath", "HostPath", Pointer(&[("path", "Path", Text), ("type", "Type", Any)])),
    ("glusterfs", "Glusterfs", Any),
    (
        "nfs",
        "NFS",
        Pointer(&[("server", "Server", Text), ("path", "Path", Text), ("readOnly", "ReadOnly", Flag)]),
    ),
    ("rbd", "RBD", Any),
    ("quobyte", "Quobyte", Any),
    ("iscsi", "ISCSI", Any),
    ("flexVolume", "FlexVolume", Any),
    ("cinder", "Cinder", Any),
    ("cephfs", "CephFS", Any),
    ("fc", "FC", Any),
    ("flocker", "Flocker", Any),
    ("azureFile", "AzureFile", Any),
    ("vsphereVolume", "VsphereVolume", Any),
    ("azureDisk", "AzureDisk", Any),
    ("photonPersistentDisk", "PhotonPersistentDisk", Any),
    ("portworxVolume", "PortworxVolume", Any),
    ("scaleIO", "ScaleIO", Any),
    ("local", "Local", Pointer(&[("path", "Path", Text), ("fsType", "FSType", Any)])),
    ("storageos", "StorageOS", Any),
    (
        "csi",
        "CSI",
        Pointer(&[
            ("driver", "Driver", Text),
            ("volumeHandle", "VolumeHandle", Text),
            ("readOnly", "ReadOnly", Flag),
            ("fsType", "FSType", Text),
            ("volumeAttributes", "VolumeAttributes", Any),
            ("controllerPublishSecretRef", "ControllerPublishSecretRef", SECRET),
            ("nodeStageSecretRef", "NodeStageSecretRef", SECRET),
            ("nodePublishSecretRef", "NodePublishSecretRef", SECRET),
            ("controllerExpandSecretRef", "ControllerExpandSecretRef", SECRET),
            ("nodeExpandSecretRef", "NodeExpandSecretRef", SECRET),
        ]),
    ),
];
