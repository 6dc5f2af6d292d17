// All jobs, newest first, live.
import { useInfiniteQuery } from "@tanstack/react-query";
import { jobsQuery } from "../api/jobs";
import { whilePaused } from "../events/paused";
import { useJobsEvents } from "../events/useJobsEvents";
import { plural } from "../format/numbers";
import { useTitle } from "../shell/useTitle";
import { ErrorView } from "../ui/ErrorView";
import { Live } from "../ui/Live";
import { EmptyJobs } from "./EmptyJobs";
import { JobTable } from "./JobTable";
import { running } from "./running";

export function JobsPage() {
  const connection = useJobsEvents();
  const jobs = useInfiniteQuery({ ...jobsQuery, ...whilePaused(connection) });
  const items = jobs.data?.pages.flatMap((page) => page.items) ?? [];
  const { title, note } = running(items.filter((job) => job.phase === "running").length, items.length, jobs.hasNextPage);
  useTitle(title);

  return (
    <>
      <div className="page-head">
        <h1>Jobs</h1>
        {note !== "" && <span className="page-note">{note}</span>}
        <Live connection={connection} />
      </div>
      {jobs.isPending && <p className="quiet-note">Reading the jobs…</p>}
      {jobs.isError && <ErrorView error={jobs.error} retry={() => void jobs.refetch()} />}
      {jobs.isSuccess && items.length === 0 && <EmptyJobs />}
      {items.length > 0 && <JobTable jobs={items} />}
      {items.length > 0 && (
        <div className="more">
          {jobs.hasNextPage && (
            <button type="button" className="button" disabled={jobs.isFetchingNextPage} onClick={() => void jobs.fetchNextPage()}>
              {jobs.isFetchingNextPage ? "Loading…" : "Load more"}
            </button>
          )}
          <span className="page-note">
            {plural(items.length, "job")}
            {jobs.hasNextPage ? " shown" : ""}
          </span>
        </div>
      )}
    </>
  );
}
