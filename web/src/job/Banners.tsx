// What a person must not overlook: a bad end, and figures that may be old.
import { Link } from "@tanstack/react-router";
import type { Job } from "../api/types";
import type { Connection } from "../events/stream";
import { exact } from "../format/times";
import { Prose } from "../ui/Prose";
import { RelativeTime } from "../ui/RelativeTime";
import type { Tab } from "./tabs";

export function Banners({ job, connection, tab }: { job: Job; connection: Connection; tab: Tab }) {
  return (
    <>
      {job.phase === "ended badly" && (
        <div className="banner bad" role="alert" data-testid="banner-ended-badly">
          <strong>The job ended badly.</strong> {" "}
          <Prose text={job.reason ?? "Slurm gave no reason; the log's last lines may."} />{" "}
          {job.nodes.length > 0 && tab !== "log" && (
            <Link to="/jobs/$id" params={{ id: job.id }} search={{ tab: "log" }} resetScroll={false}>
              Read its log
            </Link>
          )}
        </div>
      )}
      {job.phase === "unknown" && (
        <div className="banner warn" role="status" data-testid="banner-unknown">
          <strong>How the job stands is not known.</strong>{" "}
          <Prose text={job.reason ?? "Slurm said a word that Lockstep does not know; nothing is assumed of it."} />
        </div>
      )}
      {job.verdict === "deviates" && tab !== "placement" && (
        <div className="banner warn" role="status" data-testid="banner-deviates">
          <strong>Threads do not sit where they were planned</strong>, of {job.verdicts?.deviates} of {job.verdicts?.ranks} ranks: the training may
          be much slower than it could be.{" "}
          <Link to="/jobs/$id" params={{ id: job.id }} search={{ tab: "placement" }} resetScroll={false}>
            See which and where
          </Link>
        </div>
      )}
      {job.stale_since && (
        <div className="banner warn" role="status" data-testid="banner-stale">
          <strong>Stale since {exact(job.stale_since)}</strong> (<RelativeTime moment={job.stale_since} />
          ). Slurm cannot be asked; what is shown of it is the last that was heard.
        </div>
      )}
      {connection === "lost" && (
        <div className="banner warn" role="status" data-testid="banner-lost">
          <strong>The service does not answer.</strong> The training does not depend on it; this page catches up by itself.
        </div>
      )}
    </>
  );
}
