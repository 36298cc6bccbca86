//! Names of builds and projects in the form of ARNs, for tools that take such names apart: `CODEBUILD_BUILD_ARN`
//! and its like.
//!
//! Pure. There is neither a region nor an account; what stands for them is well-formed and nobody's.

use crate::{
    build::BuildId,
    digest::Digest,
    name::{ProjectName, Team},
};

/// The region of all names, and of builds that say no other: one that every tool knows.
pub const REGION: &str = "us-east-1";

/// The account of all names: that of nobody.
const ACCOUNT: &str = "000000000000";

/// The name of a build.
pub fn of_build(project: &ProjectName, build: BuildId) -> String {
    format!(
        "arn:aws:codebuild:{REGION}:{ACCOUNT}:build/{}",
        build.qualified(project)
    )
}

/// The name of a project.
pub fn of_project(project: &ProjectName) -> String {
    format!("arn:aws:codebuild:{REGION}:{ACCOUNT}:project/{project}")
}

/// The name of a group of reports.
pub fn of_report_group(group: &str) -> String {
    format!("arn:aws:codebuild:{REGION}:{ACCOUNT}:report-group/{group}")
}

/// The name of the report of a group in a build.
pub fn of_report(group: &str, build: BuildId) -> String {
    let uuid = uuid_of(&format!("{build}\0{group}"));
    format!("arn:aws:codebuild:{REGION}:{ACCOUNT}:report/{group}:{uuid}")
}

/// A UUID that a project of a team always has, and no other.
pub fn uuid_of_project(team: &Team, project: &ProjectName) -> String {
    uuid_of(&format!("{team}\0{project}"))
}

/// The UUID of what has a name: version 8 of RFC 9562, from BLAKE3 of it.
fn uuid_of(name: &str) -> String {
    let digest = Digest::of(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.hash()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    BuildId(u128::from_be_bytes(bytes)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_form_of_arns() {
        let project = "shop".parse().unwrap();
        assert_eq!(
            of_build(&project, BuildId(1)),
            "arn:aws:codebuild:us-east-1:000000000000:build/shop:00000000-0000-0000-0000-000000000001"
        );
        assert_eq!(
            of_project(&project),
            "arn:aws:codebuild:us-east-1:000000000000:project/shop"
        );
        assert_eq!(
            of_report_group("shop-unit"),
            "arn:aws:codebuild:us-east-1:000000000000:report-group/shop-unit"
        );
        let of = |build| of_report("shop-unit", BuildId(build));
        assert!(of(1).starts_with("arn:aws:codebuild:us-east-1:000000000000:report/shop-unit:"));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn the_uuid_of_a_project_is_its_own_and_says_its_version() {
        let of = |team: &str, project: &str| {
            uuid_of_project(&team.parse().unwrap(), &project.parse().unwrap())
        };
        assert_eq!(of("red", "shop"), of("red", "shop"));
        assert_ne!(of("red", "shop"), of("blue", "shop"));
        let uuid = of("red", "shop");
        assert_eq!(uuid.as_bytes()[14], b'8', "{uuid}");
        assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
    }
}
