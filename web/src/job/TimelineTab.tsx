// What happened to the job, one sentence each, as the service learnt of it.
import { useQuery } from "@tanstack/react-query";
import { Fragment } from "react";
import { timelineQuery } from "../api/jobs";
import { exact, timeOfDay } from "../format/times";
import { ErrorView } from "../ui/ErrorView";
import { Prose } from "../ui/Prose";
import { StaleNote } from "../ui/StaleNote";
import { byDay, tone } from "./timeline";

export function TimelineTab({ id }: { id: string }) {
  const timeline = useQuery(timelineQuery(id));
  if (timeline.data === undefined) {
    if (timeline.isError) return <ErrorView error={timeline.error} retry={() => void timeline.refetch()} />;
    return <p className="quiet-note">Reading the timeline…</p>;
  }
  if (timeline.data.length === 0) {
    return <p className="quiet-note">Nothing is known of what happened to this job: it is from before there were timelines.</p>;
  }
  return (
    <div className="timeline panel" data-testid="timeline">
      <StaleNote what="The timeline" of={timeline} />
      {byDay(timeline.data).map(({ day, lines }, index) => (
        <Fragment key={index}>
          <h3>{day}</h3>
          <ol>
            {lines.map(({ entry, after }) => (
              <li key={entry.id} className={`is-${tone(entry.kind)}`} data-testid="timeline-entry" data-kind={entry.kind}>
                <time dateTime={entry.time} title={exact(entry.time)}>
                  {timeOfDay(entry.time)}
                </time>
                <span className="said">
                  <Prose text={entry.text} />
                </span>
                {after !== "" && <span className="after">{after} later</span>}
              </li>
            ))}
          </ol>
        </Fragment>
      ))}
    </div>
  );
}
