// What the job trains on, and how far its nodes are with copying it to their own disks.
import type { TrainingData } from "../api/types";
import { ProgressBar } from "../ui/ProgressBar";

export function DataLine({ data }: { data: TrainingData }) {
  const { sentence, staging, nodes_staging: copying, copied_bytes: copied, total_bytes: total } = data;
  return (
    <div className="data-line" data-testid="data">
      {sentence != null && <p>{sentence}</p>}
      {staging != null && (
        <p className={copying > 0 ? undefined : "dim"} data-testid="staging">
          {staging}
        </p>
      )}
      {copying > 0 && copied != null && total != null && total > 0 && <ProgressBar done={copied} total={total} label="Bytes copied" />}
    </div>
  );
}
