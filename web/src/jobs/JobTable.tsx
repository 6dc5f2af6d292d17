// The list as a table; on a narrow screen its rows become cards (styles/list.css).
import type { Job } from "../api/types";
import { JobRow } from "./JobRow";

export function JobTable({ jobs }: { jobs: readonly Job[] }) {
  return (
    <table className="jobs" data-testid="jobs">
      <thead>
        <tr>
          <th scope="col">Job</th>
          <th scope="col">Phase</th>
          <th scope="col" className="right">
            Nodes × ranks
          </th>
          <th scope="col">Steps</th>
          <th scope="col" className="right">
            Samples/s
          </th>
          <th scope="col" className="right">
            Loss
          </th>
          <th scope="col" className="right">
            Accuracy
          </th>
          <th scope="col" className="right">
            Submitted
          </th>
        </tr>
      </thead>
      <tbody>
        {jobs.map((job) => (
          <JobRow key={job.id} job={job} />
        ))}
      </tbody>
    </table>
  );
}
